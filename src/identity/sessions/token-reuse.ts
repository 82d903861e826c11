import { timingSafeEqual } from "node:crypto";
import type { Clock } from "../../lib/clock.ts";
import type { Account } from "../account-schema.ts";
import type { Awaitable } from "../../lib/awaitable.ts";
import type { Origin } from "../sessions.ts";
import type { TokenPair } from "./token-pairs.ts";

/** What identifies a repeated login. */
export interface LoginKey {
  readonly account: Account;
  readonly passwordDigest: Buffer;
  readonly origin: Origin;
}

/** Remembers for a few seconds which tokens a login got, so that a repeated login costs no argon2 run. */
export interface TokenReuse {
  /** The tokens of an equal login, as long as nobody has used them. Rejects if that login failed. */
  find(login: LoginKey): Promise<TokenPair | undefined>;
  /** As find; without an equal login, opens and keeps new ones. Of several at once only one opens. */
  findOrKeep(login: LoginKey, open: () => Promise<TokenPair>): Promise<TokenPair>;
}

export interface TokenReuseOptions {
  readonly clock: Clock;
  /** 0 turns it off. Read at every use. */
  readonly reuseSeconds: () => number;
  /** Whether the pair's refresh token is unused and its session live. */
  readonly isUntouched: (pair: TokenPair) => Awaitable<boolean>;
  /** Logins remembered; beyond it the oldest is forgotten. */
  readonly maxEntries?: number;
}

interface Entry {
  readonly account: Account;
  readonly passwordDigest: Buffer;
  readonly promise: Promise<TokenPair>;
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

  /** The entry that is still valid, as far as can be told at once. */
  function current({ account, passwordDigest, origin }: LoginKey): Entry | undefined {
    const key = keyOf(account, origin);
    const entry = entries.get(key);
    if (entry === undefined) return undefined;
    if (entry.account !== account || clock.monotonic() >= entry.until || clock.now() >= entry.staleAt) {
      entries.delete(key);
      return undefined;
    }
    return timingSafeEqual(entry.passwordDigest, passwordDigest) ? entry : undefined;
  }

  async function find(login: LoginKey): Promise<TokenPair | undefined> {
    for (let entry = current(login); entry !== undefined; entry = current(login)) {
      const pair = await entry.promise;
      if (await isUntouched(pair)) return pair;
      const key = keyOf(login.account, login.origin);
      if (entries.get(key) === entry) entries.delete(key);
    }
    return undefined;
  }

  function keep({ account, passwordDigest, origin }: LoginKey, promise: Promise<TokenPair>): void {
    const seconds = reuseSeconds();
    if (seconds === 0) return;
    const key = keyOf(account, origin);
    const until = clock.monotonic() + seconds * 1000;
    const entry: Entry = { account, passwordDigest, promise, until, staleAt: Infinity };
    promise.then(
      (pair) => {
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
  }

  return {
    find,
    async findOrKeep(login, open) {
      const found = await find(login);
      if (found !== undefined) return found;
      // Another login may have begun since the last look.
      const running = current(login)?.promise;
      if (running !== undefined) return running;
      const opened = open();
      keep(login, opened);
      return opened;
    },
  };
}

function keyOf({ username }: Account, { ip, client }: Origin): string {
  return `${username} ${ip} ${client}`;
}
