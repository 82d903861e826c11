import type { Awaitable } from "../lib/awaitable.ts";
import type { Account } from "./account-schema.ts";
import type { AccountProblem } from "./users.ts";

/** The origin of a request for tokens. */
export interface Origin {
  readonly ip: string;
  /** The User-Agent, truncated; "" if there is none. Shown to the user, to reveal a stranger's session. */
  readonly client: string;
  readonly traceId: string;
}

/** A refresh token, new or exchanged. */
export interface RefreshGrant {
  readonly account: Account;
  readonly sessionId: string;
  readonly refreshToken: string;
  /** ms since the epoch: when it expires if it isn't used. */
  readonly refreshExpiresAt: number;
}

/** A session of a browser, and the cookie that proves it. */
export interface CookieGrant {
  readonly account: Account;
  readonly sessionId: string;
  /** Opaque. It is good for no refresh, and no refresh token is good as a cookie. */
  readonly cookie: string;
}

/** Whose session a cookie proves. Its account may have changed since: see createAuthenticateCookie. */
export interface CookieSession {
  readonly id: string;
  readonly user: string;
  /** The account's token_version at the login. */
  readonly version: number;
  /** ms since the epoch. */
  readonly createdAt: number;
}

/** The public part of a session. Times in ms since the epoch. */
export interface SessionInfo {
  readonly id: string;
  readonly createdAt: number;
  /** The login or the last exchange. */
  readonly usedAt: number;
  readonly expiresAt: number;
  /** Address and User-Agent of the login. */
  readonly ip: string;
  readonly client: string;
}

/**
 * Sessions: one for each login. Those of programs are continued by refresh tokens, each of which is valid for one
 * exchange; those of browsers have one cookie until they end.
 */
export interface Sessions {
  /** Starts a session. Ends old ones if the user has too many, and those of an older token_version. */
  open(account: Account, origin: Origin): Awaitable<RefreshGrant>;
  /** As `open`, for a browser: the session has a cookie instead of a refresh token. */
  openCookie(account: Account, origin: Origin): Awaitable<CookieGrant>;
  /** The session of a cookie; undefined if it has none that is live. Called for every request with one. */
  ofCookie(cookie: string): Awaitable<CookieSession | undefined>;
  /**
   * Exchanges a refresh token for its successor, which is stored before it is handed out.
   *
   * @throws AppError `invalid_token` (unknown, ended, or used before: then the session has been ended),
   * `token_expired`, `account_disabled`, `storage_unavailable` (the token is still valid)
   */
  refresh(refreshToken: string, origin: Origin): Awaitable<RefreshGrant>;
  /** Whether access tokens of the session are valid. Called for every request. */
  isLive(id: string): Awaitable<boolean>;
  /** Whether the session is live and its first refresh token has not been exchanged yet. */
  isUntouched(id: string): Awaitable<boolean>;
  /** The user's sessions that have not expired, most recently used first. */
  list(user: string): Awaitable<readonly SessionInfo[]>;
  /**
   * Ends a session at once; stored when this resolves. Resolves to false if the user has no such session.
   *
   * @throws AppError `storage_unavailable`: ended here, but perhaps not for ever
   */
  end(user: string, id: string): Awaitable<boolean>;
  /** Ends all sessions of a user; resolves to how many. Throws as above. */
  endAll(user: string): Awaitable<number>;
  /**
   * Ends the session of a refresh token, current or spent. Resolves to what has been ended; undefined if the token has
   * no session any more. Throws as above.
   */
  endByToken(refreshToken: string): Awaitable<{ readonly user: string; readonly id: string } | undefined>;
  /** Sessions that could not be read, and are not in force. */
  problems(): Awaitable<readonly AccountProblem[]>;
}
