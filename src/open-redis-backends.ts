import { join } from "node:path";
import { guardBackends, type Backends } from "./backends.ts";
import type { Config } from "./config/schema.ts";
import { openFileUsers } from "./identity/files/file-users.ts";
import { openRedisIdentity, type RedisIdentity } from "./identity/redis/open-redis-identity.ts";
import { type Redis, replyNumber } from "./lib/redis/redis.ts";
import { queueRule } from "./limits/permit-rules.ts";
import { createRedisConcurrency } from "./limits/redis/redis-concurrency.ts";
import { createRedisRateLimiter } from "./limits/redis/redis-rate-limiter.ts";
import type { OpenBackendsOptions, OpenedBackends } from "./open-backends.ts";
import { putBackTokenSecret } from "./open-redis-state.ts";
import { openMemoryLedger } from "./quota/memory/memory-ledger.ts";
import { openRedisLedger } from "./quota/redis/redis-ledger.ts";
import { createConcurrencyWithoutRedis, createRatesWithoutRedis } from "./limits/redis/limits-away.ts";
import { openReplica } from "./replica/replica.ts";
import { createRateRules, type RateRule } from "./limits/rate-rules.ts";

/**
 * Opens the backends over Redis, except those that are given. The users folder becomes this node's copy of the state: an
 * empty Redis is filled from it, and what happens in Redis is written to it.
 */
export async function openRedisBackends(
  options: OpenBackendsOptions & { readonly redis: Redis },
): Promise<OpenedBackends> {
  const { redis, given, usersDir, config, clock, log, emit, newId } = options;
  const { quota, storage, usage, state } = config;
  const opened = <Store extends { close(): Promise<void> }>(store: Store): Store => {
    options.onOpen(() => store.close());
    return store;
  };
  const files = { usersDir, clock, log };
  const { tierNames, hashPassword, auth, panel, security } = options;

  // Passwords that people have written into the files are hashed before anything is copied.
  const written = await openFileUsers({ ...files, tierNames, hashPassword, watch: false });
  await written.close();
  const copy = opened(await openMemoryLedger({ ...files, quota, storage, usage }));
  const putBack = (tag: string): Promise<void> => putBackTokenSecret(redis, usersDir, tag);
  const replica = await openReplica({ redis, ledger: copy, graceMs: state.restore_wait_ms, putBack, ...files });
  options.onOpen(async () => {
    // So that the copy has the last charges of this process.
    await replica.catchUp().catch(() => undefined);
    await replica.close();
  });
  const away = state.when_away === "allowance";
  const allowanceMs = state.allowance_seconds * 1000;
  const { allowance_share: share } = state;
  const folder = join(usersDir, ".away");
  const syncIntervalMs = storage.sync_interval_ms;
  const ledger = opened(
    await openRedisLedger({
      redis,
      replica,
      quota,
      state,
      storage,
      clock,
      log,
      newId,
      allowance: away ? { share, allowanceMs, folder, syncIntervalMs } : undefined,
    }),
  );
  const isServing = (): boolean => ledger.allowance?.isServing() === true;
  /** Other processes that start at the same time may put together what Redis has: that is no reason to end. */
  const startsUntil = clock.monotonic() + longestStartMs;
  /** What our own ones need of others is asked of those in use. */
  const inUse: { users?: Backends["users"] } = {};
  const identity: RedisIdentity = opened(
    await openRedisIdentity({
      redis,
      clock,
      log,
      emit,
      newId,
      auth,
      panel,
      security,
      tierNames,
      hashPassword,
      groups: config.groups,
      findAccount: (name) => (inUse.users ?? users).get(name),
      lastSeq: (tag) => String(replica.lastSeq(tag)),
      waitsForMending: () => clock.monotonic() < startsUntil,
      trustedAwayMs: () => (isServing() ? allowanceMs : 0),
      note: (tag, { seq, at, body }) => {
        replica.note(tag, { seq, kind: "doc", writtenAt: at, body });
      },
    }),
  );
  const { users, sessions, apiKeys, groups, codes, externalLogins, loginGuard, nonces } = identity;

  let rated: Pick<Config, "rate_limit" | "limits"> = config;
  await groups.list();
  const rateRules = (): readonly RateRule[] => createRateRules(rated, groups.latest());
  const sharedRates = createRedisRateLimiter({ redis, rules: rateRules() });
  const ownShare = { isServing, processes: away ? countProcesses(redis, options.onOpen) : () => 1 };
  const rateLimiter = away ? createRatesWithoutRedis(sharedRates, rateRules(), ownShare, clock) : sharedRates;
  groups.onChange(() => {
    rateLimiter.configure(rateRules());
  });
  const rule = queueRule(config.concurrency);
  const now = (): number => clock.monotonic();
  const sharedPermits = createRedisConcurrency({ redis, rule, leaseMs: state.lease_seconds * 1000, now });
  // A loss in one tag has all of them mended.
  replica.beforeOpening((tag) => (tag === redis.tags[0] ? sharedPermits.renew() : Promise.resolve()));
  const concurrency = away ? createConcurrencyWithoutRedis(sharedPermits, rule, ownShare, now) : sharedPermits;
  options.onOpen(() => {
    concurrency.close();
  });
  const own: Backends = {
    ledger,
    users,
    sessions,
    apiKeys,
    groups,
    codes,
    externalLogins,
    loginGuard,
    nonces,
    rateLimiter,
    concurrency,
  };
  const replaced = typeof given === "function" ? given(own) : (given ?? {});
  const backends = guardBackends({ ...own, ...replaced });
  inUse.users = backends.users;
  return {
    backends,
    configure(next) {
      rated = next;
      // The groups tell the rates, if there are other ones.
      identity.configure(next);
      rateLimiter.configure(rateRules());
      concurrency.configure(queueRule(next.concurrency));
    },
    journalUnsynced: () => copy.stats().lagRecords,
    allowance: ledger.allowance,
  };
}

/** For how long a process waits for others in its start, in ms. */
const longestStartMs = 30_000;
/** How often the processes are counted, in ms. */
const countEveryMs = 2000;

/** How many processes were heard of in the last minute, when Redis last answered. */
function countProcesses(redis: Redis, onOpen: OpenBackendsOptions["onOpen"]): () => number {
  const key = redis.keyIn(redis.tagOf("fleet"), "seen");
  let count = 1;
  const timer = setInterval(() => {
    redis.send(key, ["ZCARD", key]).then(
      (reply) => (count = Math.max(1, replyNumber(reply))),
      () => undefined,
    );
  }, countEveryMs).unref();
  onOpen(() => {
    clearInterval(timer);
  });
  return () => count;
}
