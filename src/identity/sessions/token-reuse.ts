import { timingSafeEqual } from "node:crypto";
import type { Clock } from "../../lib/clock.ts";
import type { Account } from "../account-schema.ts";
import type { Origin } from "./sessions.ts";
import type { TokenPair } from "./token-pairs.ts";

/** What identifies a repeated login. */
export interface LoginKey {
  readonly account: Account;
  readonly passwordDigest: Buffer;
  readonly origin: Origin;
}

/** Remembers for a few seconds which tokens a login got, so that a repeated login costs no argon2 run. */
export interface TokenReuse {
  find(login: LoginKey): Promise<TokenPair> | undefined;
  keep(login: LoginKey, pair: Promise<TokenPair>): void;
}

export interface TokenReuseOptions {
  readonly clock: Clock;
  /** 0 turns it off. Read at every use. */
  readonly reuseSeconds: () => number;
  /** Whether the pair's refresh token is unused and its session live. */
  readonly isUntouched: (pair: TokenPair) => boolean;
  /** Logins remembered; beyond it the oldest is forgotten. */
  readonly maxEntries?: number;
}

interface Entry {
  readonly account: Account;
  readonly passwordDigest: Buffer;
  readonly promise: Promise<TokenPair>;
  /** Set once it has been issued. */
  pair: TokenPair | undefined;
  /** Monotonic ms. */
  readonly until: number;
  /** ms since the epoch, the clock by which tokens expire: from then on too little of its life is left. */
  staleAt: number;
}

/**
 * Creates the memory. An entry is valid for one Account object only: the store creates a new one at every change, so a
 * new password, a ban or a changed role ends the reuse automatically.
 *
 * A refresh token is valid for one exchange, so two programs must not share one: a repeated login is one from the same
 * address by the same program, and only until it has exchanged the token.
 */
export function createTokenReuse(options: TokenReuseOptions): TokenReuse {
  const { clock, reuseSeconds, isUntouched, maxEntries = 10_000 } = options;
  const entries = new Map<string, Entry>();

  return {
    find: ({ account, passwordDigest, origin }) => {
      const key = keyOf(account, origin);
      const entry = entries.get(key);
      if (entry === undefined) return undefined;
      const isStale = clock.now() >= entry.staleAt;
      const isGone = entry.pair !== undefined && !isUntouched(entry.pair);
      if (entry.account !== account || clock.monotonic() >= entry.until || isStale || isGone) {
        entries.delete(key);
        return undefined;
      }
      return timingSafeEqual(entry.passwordDigest, passwordDigest) ? entry.promise : undefined;
    },
    keep: ({ account, passwordDigest, origin }, promise) => {
      const seconds = reuseSeconds();
      if (seconds === 0) return;
      const key = keyOf(account, origin);
      const until = clock.monotonic() + seconds * 1000;
      const entry: Entry = { account, passwordDigest, promise, pair: undefined, until, staleAt: Infinity };
      promise.then(
        (pair) => {
          entry.pair = pair;
          // Never hand out a token with less than half of its life left.
          entry.staleAt = clock.now() + (pair.expiresAt - clock.now()) / 2;
        },
        () => {
          if (entries.get(key) === entry) entries.delete(key);
        },
      );
      entries.delete(key);
      entries.set(key, entry);
      const [oldest] = entries.keys();
      if (entries.size > maxEntries && oldest !== undefined) entries.delete(oldest);
    },
  };
}

function keyOf({ username }: Account, { ip, client }: Origin): string {
  return `${username} ${ip} ${client}`;
}
