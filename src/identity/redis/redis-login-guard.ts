import { randomUUID } from "node:crypto";
import type { LoginLocked, LoginUnlocked } from "../../events/catalogue.ts";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import { ipPrefix } from "../../lib/ip-list.ts";
import { type Redis, replyList, replyNumber, replyText } from "../../lib/redis/redis.ts";
import type { LockedLogin, LoginAttempt, LoginGuard } from "../login-guard.ts";
import {
  countedName,
  countedNames,
  type GuardFigures,
  ownersOf,
  pairKey,
  widerNetworks,
} from "../memory/memory-login-guard.ts";

export interface RedisLoginGuardOptions {
  readonly redis: Redis;
  readonly figures: GuardFigures;
  readonly clock: Clock;
  readonly emit: (event: LoginLocked | LoginUnlocked) => void;
  /** ms since the epoch instead of Redis's time. For tests. */
  readonly now?: (() => number) | undefined;
}

type Scope = LockedLogin["scope"];

/** One count that an attempt is for; see guard.lua. */
interface Counter {
  readonly t: number;
  readonly k: string;
  readonly scope: Scope;
  readonly strict: boolean;
  readonly factor: number;
  readonly max: number;
}

/** The tables in the order of their keys. */
const tables = ["accounts", "names", "pairs", "addresses", "net56", "net48"] as const;
type Table = (typeof tables)[number];
const scopes: Readonly<Record<Table, Scope>> = {
  accounts: "account",
  names: "account",
  pairs: "known_address",
  addresses: "address",
  net56: "address",
  net48: "address",
};
/** An attempt that is never reported ends after so long, in ms: its process has died. */
const leaseMs = 60_000;

/** The place of a table's first key, counted from 1 behind two others. */
const placeOf = (table: Table): number => 3 + 3 * tables.indexOf(table);

/**
 * The login guard over Redis: the rules of the one in memory, counted for all processes. All counts are in one slot, so
 * that one call checks and begins an attempt: of guesses sent at once to many processes no more pass than to one.
 * Passwords are checked far more slowly than one slot answers.
 */
export function createRedisLoginGuard(options: RedisLoginGuardOptions): LoginGuard {
  const { redis, figures, clock, emit } = options;
  const tag = redis.tagOf("guard");
  const tableKeys = tables.flatMap((table) =>
    ["", "/light", "/heavy"].map((part) => redis.keyIn(tag, "guard", table + part)),
  );

  async function call(name: string, user: string, id: string, ask: object) {
    const { freeFailures: free, firstWaitMs: first, maxWaitMs: max, quietMs: quiet } = figures.rule;
    const known = redis.keyIn(tag, "guard", `known/${user}`);
    const keys = [known, redis.keyIn(tag, "guardend", id), ...tableKeys] as const;
    const at = options.now?.();
    const keep = figures.knownAddressMs;
    return redis.call(name, keys, [JSON.stringify({ ...ask, id, at, keep, rule: { free, first, max, quiet } })]);
  }

  function counter(table: Table, key: string, { strict = true, factor = 1, max = 0 } = {}): Counter {
    return { t: placeOf(table), k: key, scope: scopes[table], strict, factor, max };
  }

  /** The counts of an attempt from an address that the account is not known at. */
  function countersOf(attempt: Omit<LoginAttempt, "traceId">): readonly Counter[] {
    const { known, ip } = attempt;
    const name = countedName(attempt);
    const max = figures.maxTracked / 2;
    const account = known ? counter("accounts", name) : counter("names", name, { max });
    if (figures.isShared(ip)) return [account];
    const address = ipPrefix(ip);
    const own = counter("addresses", address, { strict: false, max });
    if (!address.includes(":")) return [account, own];
    const wider = widerNetworks.map(([bits, factor]) =>
      counter(bits === 56 ? "net56" : "net48", ipPrefix(ip, bits), { strict: false, factor, max }),
    );
    return [account, own, ...wider];
  }

  /** Begins an attempt, or only asks whether it could. Returns the counts that it is for. */
  async function admit(attempt: Omit<LoginAttempt, "traceId">, id: string, begin: boolean) {
    const address = ipPrefix(attempt.ip);
    const pair = counter("pairs", pairKey(countedName(attempt), address));
    const others = countersOf(attempt);
    const ask = { begin, lease: leaseMs, address, pair, others };
    const [waitMs, isKnown] = replyList(await call("guard_start", attempt.user, id, ask)).map(replyNumber);
    if (waitMs !== 0) throw new AppError("login_blocked", { retryAfterSeconds: (waitMs ?? 0) / 1000 });
    return { isKnown: isKnown === 1, counters: isKnown === 1 ? [pair] : others };
  }

  return {
    async check(attempt) {
      await admit(attempt, "", false);
    },
    async start(attempt) {
      const id = randomUUID();
      const { user, known, ip, traceId } = attempt;
      const { isKnown, counters } = await admit(attempt, id, true);
      const end = async (outcome: "failed" | "succeeded" | "dropped"): Promise<void> => {
        const isKnownNow = outcome === "succeeded" && known;
        const address = isKnownNow ? ipPrefix(ip) : undefined;
        const reply = replyText(await call("guard_end", user, id, { outcome, counters, address }));
        for (const escalated of JSON.parse(reply) as Pick<
          LoginLocked,
          "scope" | "failures" | "escalation" | "waitMs"
        >[]) {
          emit({ type: "login.locked", at: clock.now(), traceId, ip, user, known, ...escalated });
        }
      };
      return {
        isKnown,
        failed: () => end("failed"),
        succeeded: () => end("succeeded"),
        dropped: () => end("dropped"),
      };
    },
    async unlock({ user, known, admin, ip, traceId }) {
      const users = countedNames(user);
      const accounts = users.flatMap((name) => [counter("accounts", name), counter("names", name)]);
      const reply = await call("guard_unlock", user, randomUUID(), { users, accounts, pairs: placeOf("pairs") });
      const found = replyNumber(reply) === 1;
      if (found) emit({ type: "login.unlocked", at: clock.now(), traceId, ip, user, known, by: admin });
      return found;
    },
    async locked(limit = 1000) {
      const reply = replyList(await call("guard_locked", "", "", { limit, tables: tables.map(placeOf) }));
      return reply.map((row): LockedLogin => {
        const [place, key, failures, retryAfterMs] = replyList(row);
        const table = tables[(replyNumber(place) - 3) / 3] ?? "accounts";
        return {
          ...ownersOf(replyText(key), scopes[table]),
          failures: replyNumber(failures),
          retryAfterMs: replyNumber(retryAfterMs),
        };
      });
    },
  };
}
