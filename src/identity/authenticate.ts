import { AppError } from "../errors.ts";
import type { Clock } from "../lib/clock.ts";
import type { Account } from "./account-schema.ts";
import { checkUsable } from "./account-state.ts";
import { looksLikeApiKey } from "./keys/api-key-text.ts";
import type { ApiKey } from "./keys/api-key.ts";
import type { ApiKeys } from "./keys/api-keys.ts";
import type { AccessClaims } from "./sessions/claims.ts";
import type { Sessions } from "./sessions/sessions.ts";

/** The account of a request, and the credential it used. */
export interface Identity {
  readonly account: Account;
  /** The API key of the request; null for an access token. */
  readonly apiKey: ApiKey | null;
  /** The session of the access token; null for API keys. */
  readonly sessionId: string | null;
}

export interface AuthenticateOptions {
  /** AccountStore.get */
  readonly findAccount: (name: string) => Account | undefined;
  /** Checks an access token. Throws AppError. */
  readonly verifyToken: (token: string) => AccessClaims;
  readonly sessions: Pick<Sessions, "isLive">;
  readonly apiKeys: Pick<ApiKeys, "check">;
  readonly clock: Clock;
}

/**
 * Creates the check that every request passes: the credential is valid, and the account exists, may be used now, and
 * has not been disabled or given a new password since the login. Synchronous; a few Map lookups.
 *
 * @returns a function of a credential and the client's address. Throws AppError `invalid_token`, `token_expired`,
 * `invalid_api_key`, `account_disabled` or `address_not_allowed`
 */
export function createAuthenticate(options: AuthenticateOptions): (credential: string, ip: string) => Identity {
  const { findAccount, verifyToken, sessions, apiKeys, clock } = options;

  function byToken(token: string): Identity {
    const claims = verifyToken(token);
    const account = findAccount(claims.sub);
    if (account === undefined) throw new AppError("invalid_token");
    // Before the version check: disabling raises the version, and the user should learn why the token stopped working.
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
    // A key older than the account belonged to a previous user of the same name.
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
