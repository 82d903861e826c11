import type { Account } from "../account-schema.ts";
import type { Origin, RefreshGrant, Sessions } from "../sessions.ts";
import type { IssuedToken } from "./claims.ts";

/** An access token, and the refresh token to get the next one. */
export interface TokenPair extends IssuedToken, RefreshGrant {}

/** Issues tokens in pairs. */
export interface TokenPairs {
  /** Starts a session. */
  open(account: Account, origin: Origin): Promise<TokenPair>;
  /** Continues a session. Throws as Sessions.refresh does. */
  refresh(refreshToken: string, origin: Origin): Promise<TokenPair>;
}

/** @param issueToken signs an access token of a session */
export function createTokenPairs(
  sessions: Pick<Sessions, "open" | "refresh">,
  issueToken: (account: Account, sessionId: string) => IssuedToken,
): TokenPairs {
  const pair = (grant: RefreshGrant): TokenPair => ({ ...grant, ...issueToken(grant.account, grant.sessionId) });
  return {
    open: async (account, origin) => pair(await sessions.open(account, origin)),
    refresh: async (refreshToken, origin) => pair(await sessions.refresh(refreshToken, origin)),
  };
}
