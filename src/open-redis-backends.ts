import { guardBackends, type Backends } from "./backends.ts";
import type { Config } from "./config/schema.ts";
import { openFileUsers } from "./identity/files/file-users.ts";
import { openRedisIdentity, type RedisIdentity } from "./identity/redis/open-redis-identity.ts";
import type { Redis } from "./lib/redis/redis.ts";
import { queueRule } from "./limits/permit-rules.ts";
import { createRedisConcurrency } from "./limits/redis/redis-concurrency.ts";
import { createRedisRateLimiter } from "./limits/redis/redis-rate-limiter.ts";
import type { OpenBackendsOptions, OpenedBackends } from "./open-backends.ts";
import { openMemoryLedger } from "./quota/memory/memory-ledger.ts";
import { createRedisLedger } from "./quota/redis/redis-ledger.ts";
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
  const { tierNames, hashPassword, auth, security } = options;

  // Passwords that people have written into the files are hashed before anything is copied.
  const written = await openFileUsers({ ...files, tierNames, hashPassword, watch: false });
  await written.close();
  const copy = opened(await openMemoryLedger({ ...files, quota, storage, usage }));
  const replica = await openReplica({ redis, ledger: copy, graceMs: state.restore_wait_ms, ...files });
  options.onOpen(async () => {
    // So that the copy has the last charges of this process.
    await replica.catchUp().catch(() => undefined);
    await replica.close();
  });
  const ledger = opened(createRedisLedger({ redis, replica, quota, state, storage, clock, log, newId }));
  /** What our own ones need of others is asked of those in use. */
  const inUse: { users?: Backends["users"] } = {};
  const identity: RedisIdentity = opened(
    await openRedisIdentity({
      ...{ redis, clock, log, emit, newId, auth, security, tierNames, hashPassword },
      groups: config.groups,
      findAccount: (name) => (inUse.users ?? users).get(name),
      lastSeq: (tag) => String(replica.lastSeq(tag)),
      note: (tag, { seq, at, body }) => {
        replica.note(tag, { seq, kind: "doc", writtenAt: at, body });
      },
    }),
  );
  const { users, sessions, apiKeys, groups, codes, loginGuard, nonces } = identity;

  let rated: Pick<Config, "rate_limit" | "limits"> = config;
  await groups.list();
  const rateRules = (): readonly RateRule[] => createRateRules(rated, groups.latest());
  const rateLimiter = createRedisRateLimiter({ redis, rules: rateRules() });
  groups.onChange(() => {
    rateLimiter.configure(rateRules());
  });
  const concurrency = createRedisConcurrency({
    redis,
    rule: queueRule(config.concurrency),
    leaseMs: state.lease_seconds * 1000,
    now: () => clock.monotonic(),
  });
  options.onOpen(() => {
    concurrency.close();
  });
  const own: Backends = {
    ...{ ledger, users, sessions, apiKeys, groups, codes, loginGuard, nonces, rateLimiter, concurrency },
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
  };
}
