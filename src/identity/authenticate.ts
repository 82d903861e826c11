import { AppError } from "../errors.ts";
import type { Clock } from "../lib/clock.ts";
import type { Account } from "./account-schema.ts";
import { checkUsable } from "./account-state.ts";
import { looksLikeApiKey } from "./keys/api-key-text.ts";
import type { ApiKey } from "./keys/api-key.ts";
import type { ApiKeys } from "./keys/api-keys.ts";
import type { AccessClaims } from "./sessions/claims.ts";
import type { Sessions } from "./sessions/sessions.ts";

/** Whose request it is, and by what right. */
export interface Identity {
  readonly account: Account;
  /** The API key that it came with; null for an access token. */
  readonly apiKey: ApiKey | null;
  /** The session of the access token; null for API keys. */
  readonly sessionId: string | null;
}

export interface AuthenticateOptions {
  /** The accounts' `get`. */
  readonly findAccount: (name: string) => Account | undefined;
  /** Checks an access token. Throws AppError. */
  readonly verifyToken: (token: string) => AccessClaims;
  readonly sessions: Pick<Sessions, "isLive">;
  readonly apiKeys: Pick<ApiKeys, "check">;
  readonly clock: Clock;
}

/**
 * Makes the check that every request passes: the credential is good, and the account exists and may be used now, has
 * had no new password and not been disabled since the login. Synchronous; a few Map look-ups.
 *
 * @returns a function from a credential and the client's address. Throws AppError `invalid_token`, `token_expired`,
 *   `invalid_api_key`, `account_disabled` or `address_not_allowed`
 */
export function createAuthenticate(options: AuthenticateOptions): (credential: string, ip: string) => Identity {
  const { findAccount, verifyToken, sessions, apiKeys, clock } = options;

  function byToken(token: string): Identity {
    const claims = verifyToken(token);
    const account = findAccount(claims.sub);
    if (account === undefined) throw new AppError("invalid_token");
    // Before the version: disabling raises it, and the person should learn why the token has stopped working.
    checkUsable(account, clock.now());
    if (account.token_version !== claims.ver) throw new AppError("invalid_token");
    if (!sessions.isLive(claims.sid)) {
      throw new AppError("invalid_token", { message: "The session has been ended. Log in again." });
    }
    return { account, apiKey: null, sessionId: claims.sid };
  }

  function byApiKey(text: string, ip: string): Identity {
    const apiKey = apiKeys.check(text);
    const account = findAccount(apiKey.user);
    // A key that is older than the account was of somebody else who had the name before.
    if (account === undefined || apiKey.createdAt < (account.created_at?.getTime() ?? 0)) {
      throw new AppError("invalid_api_key");
    }
    checkUsable(account, clock.now());
    if (!apiKey.allowsAddress(ip)) {
      throw new AppError("address_not_allowed", { message: "This API key may not be used from this address." });
    }
    return { account, apiKey, sessionId: null };
  }

  return (credential, ip) => (looksLikeApiKey(credential) ? byApiKey(credential, ip) : byToken(credential));
}
