import { timingSafeEqual } from "node:crypto";
import type { Clock } from "../lib/clock.ts";
import type { Account } from "./account-schema.ts";

/** A signed token and its end in ms since the epoch. */
export interface IssuedToken {
  readonly token: string;
  readonly expiresAt: number;
}

/** Remembers for a few seconds which token a login got, so that the same login again costs no argon2 run. */
export interface TokenReuse {
  find(account: Account, passwordDigest: Buffer): IssuedToken | undefined;
  keep(account: Account, passwordDigest: Buffer, issued: IssuedToken): void;
}

/** Limits of createTokenReuse. */
export interface TokenReuseOptions {
  readonly clock: Clock;
  /** 0 turns it off. */
  readonly reuseSeconds: number;
  /** Users remembered; beyond it the one who logged in longest ago is forgotten. */
  readonly maxEntries?: number;
}

interface Entry {
  readonly account: Account;
  readonly passwordDigest: Buffer;
  readonly issued: IssuedToken;
  /** Monotonic ms. */
  readonly until: number;
}

/**
 * Makes the memory. An entry holds good for one Account object only: the store makes a new one at every change, so a
 * new password, a ban or a changed role ends the reuse by itself.
 */
export function createTokenReuse({ clock, reuseSeconds, maxEntries = 10_000 }: TokenReuseOptions): TokenReuse {
  const entries = new Map<string, Entry>();

  return {
    find: (account, passwordDigest) => {
      const entry = entries.get(account.username);
      if (entry === undefined) return undefined;
      if (entry.account !== account || clock.monotonic() >= entry.until) {
        entries.delete(account.username);
        return undefined;
      }
      return timingSafeEqual(entry.passwordDigest, passwordDigest) ? entry.issued : undefined;
    },
    keep: (account, passwordDigest, issued) => {
      if (reuseSeconds === 0) return;
      // Never hand out a token that has less than half of its life left.
      const reuseMs = Math.min(reuseSeconds * 1000, (issued.expiresAt - clock.now()) / 2);
      entries.delete(account.username);
      entries.set(account.username, { account, passwordDigest, issued, until: clock.monotonic() + reuseMs });
      const [oldest] = entries.keys();
      if (entries.size > maxEntries && oldest !== undefined) entries.delete(oldest);
    },
  };
}
