import { AppError } from "../errors.ts";
import type { Clock } from "../lib/clock.ts";
import type { Account } from "./account-schema.ts";
import { checkUsable, createAddressCheck } from "./account-state.ts";
import type { ApiKeys } from "./api-keys.ts";
import { looksLikeApiKey } from "./keys/api-key-text.ts";
import type { ApiKey } from "./keys/api-key.ts";
import type { Sessions } from "./sessions.ts";
import type { Tokens } from "./sessions/tokens.ts";
import type { Users } from "./users.ts";

/** The account of a request, and the credential it used. */
export interface Identity {
  readonly account: Account;
  /** The API key of the request; null for an access token. */
  readonly apiKey: ApiKey | null;
  /** Signs the requests of the API key; null if they need no signature. */
  readonly signingSecret: string | null;
  /** The session of the access token; null for API keys. */
  readonly sessionId: string | null;
}

/**
 * The identity of a credential and the client's address. Rejects with AppError `invalid_token`, `token_expired`,
 * `invalid_api_key`, `account_disabled`, `address_not_allowed` or `storage_unavailable`.
 */
export type Authenticate = (credential: string, ip: string) => Promise<Identity>;

/** The same for the cookie of a browser's session. Rejects as Authenticate does. */
export type AuthenticateCookie = (cookie: string, ip: string) => Promise<Identity>;

export interface AuthenticateOptions {
  readonly users: Pick<Users, "get">;
  readonly tokens: Pick<Tokens, "verify">;
  readonly sessions: Pick<Sessions, "isLive">;
  readonly apiKeys: Pick<ApiKeys, "find">;
  readonly clock: Clock;
}

/**
 * Creates the check that every request passes: the credential is valid, and the account exists, may be used now, and
 * has not been disabled or given a new password since the login.
 */
export function createAuthenticate(options: AuthenticateOptions): Authenticate {
  const { users, tokens, sessions, apiKeys, clock } = options;
  const checkAddress = createAddressCheck();

  async function byToken(token: string, ip: string): Promise<Identity> {
    const claims = tokens.verify(token);
    const isLive = await sessions.isLive(claims.sid);
    const account = await users.get(claims.sub);
    if (account === undefined) throw new AppError("invalid_token");
    // Before the other checks: disabling ends the token, and the user should learn why it stopped working.
    checkUsable(account, clock.now());
    if (account.token_version !== claims.ver || account.service === true) throw new AppError("invalid_token");
    if (!isLive) throw new AppError("invalid_token", { message: "The session has been ended. Log in again." });
    checkAddress(account, ip);
    return { account, apiKey: null, signingSecret: null, sessionId: claims.sid };
  }

  async function byApiKey(text: string, ip: string): Promise<Identity> {
    const { key: apiKey, signingSecret } = await apiKeys.find(text);
    const account = await users.get(apiKey.user);
    // A key older than the account belonged to a previous user of the same name.
    if (account === undefined || apiKey.createdAt < (account.created_at?.getTime() ?? 0)) {
      throw new AppError("invalid_api_key");
    }
    checkUsable(account, clock.now());
    if (!apiKey.allowsAddress(ip)) {
      throw new AppError("address_not_allowed", { message: "This API key may not be used from this address." });
    }
    checkAddress(account, ip);
    return { account, apiKey, signingSecret, sessionId: null };
  }

  return (credential, ip) => (looksLikeApiKey(credential) ? byApiKey(credential, ip) : byToken(credential, ip));
}

export interface AuthenticateCookieOptions {
  readonly users: Pick<Users, "get">;
  readonly sessions: Pick<Sessions, "ofCookie">;
  /** How long a cookie is good for, from the login on, in s. Read at every use. */
  readonly lifeSeconds: () => number;
  readonly clock: Clock;
}

/** Creates the check of every request with a cookie. It knows neither access tokens nor API keys. */
export function createAuthenticateCookie(options: AuthenticateCookieOptions): AuthenticateCookie {
  const { users, sessions, lifeSeconds, clock } = options;
  const checkAddress = createAddressCheck();

  return async (cookie, ip) => {
    const session = await sessions.ofCookie(cookie);
    if (session === undefined) throw sessionEnded();
    const account = await users.get(session.user);
    if (account === undefined) throw sessionEnded();
    checkUsable(account, clock.now());
    if (account.token_version !== session.version || account.service === true) throw sessionEnded();
    if (clock.now() >= session.createdAt + lifeSeconds() * 1000) {
      throw new AppError("token_expired", { message: "The session has expired. Log in again." });
    }
    checkAddress(account, ip);
    return { account, apiKey: null, signingSecret: null, sessionId: session.id };
  };
}

function sessionEnded(): AppError {
  return new AppError("invalid_token", { message: "The session has been ended. Log in again." });
}
