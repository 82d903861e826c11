import { randomBytes } from "node:crypto";
import { onTestFinished } from "vitest";
import type { FunctionLibrary } from "../../src/lib/redis/library.ts";
import type { Clock } from "../../src/lib/clock.ts";
import type { Redis } from "../../src/lib/redis/redis.ts";
import type { LedgerReplica, LogRecord } from "../../src/quota/redis/ledger-replica.ts";
import { openRedisLedger, type RedisLedger, type RedisLedgerOptions } from "../../src/quota/redis/redis-ledger.ts";
import type { LedgerRecord } from "../../src/quota/memory/charge-record.ts";
import type { MemoryLedger } from "../../src/quota/memory/memory-ledger.ts";
import { createRedisLibrary } from "../../src/redis-library.ts";
import { createCapturedLog } from "./captured-log.ts";
import { openTestLedger } from "./ledger.ts";
import { tempDir } from "./temp-dir.ts";

/** The library, whose functions take their time from the test. */
export function createTimedLibrary(): FunctionLibrary {
  return createRedisLibrary([new URL("./redis-clock.lua", import.meta.url)]);
}

/** A connection whose calls take place at the time of a clock: with createTimedLibrary. */
export function withClock(redis: Redis, clock: Pick<Clock, "now">): Redis {
  return {
    ...redis,
    call(name, keys, args, options) {
      // Both in one write: nothing comes between them.
      redis.call("test_clock", [keys[0]], [clock.now()]).catch(() => undefined);
      return redis.call(name, keys, args, options);
    },
  };
}

/** A replica of what this node's own calls have recorded. Nothing is ever lost. */
export async function createTestReplica(clock: Clock): Promise<LedgerReplica & { readonly ledger: MemoryLedger }> {
  const ledger = await openTestLedger(tempDir(), clock);
  const last = new Map<string, number>();
  return {
    ledger,
    lastSeq: (tag) => last.get(tag) ?? 0,
    hasBegun: () => false,
    note(tag, record) {
      last.set(tag, Math.max(record.seq, last.get(tag) ?? 0));
      const counted = ledgerRecordOf(record);
      if (counted !== undefined) ledger.follower.apply({ ...counted, from: { log: `${tag}.test`, seq: record.seq } });
    },
    repair: () => Promise.reject(new Error("nothing can be repaired")),
    usage: (query) => ledger.usage(query),
    usageOfAll: (span) => ledger.usageOfAll(span),
    recorded: (after) => ledger.recorded(after),
    missingBefore: () => null,
    problems: () => [],
    beforeOpening: () => undefined,
    refusal: () => undefined,
  };
}

function ledgerRecordOf({ kind, body, writtenAt }: LogRecord): LedgerRecord | undefined {
  if (kind === "mark") return undefined;
  const { group, ...record } = JSON.parse(body) as { at: number; group?: string };
  const share = group === undefined ? undefined : { name: group, at: record.at };
  return { kind, ...record, group: share, settledAt: Math.max(record.at, writtenAt) } as unknown as LedgerRecord;
}

/** Says that the tags have all that was ever recorded, as seeding does. */
export async function seedTags(redis: Redis): Promise<void> {
  await Promise.all(
    redis.tags.map((tag) => {
      const key = redis.keyIn(tag, "logseq");
      return redis.send(key, ["HSET", key, "epoch", "test", "seq", "0"]);
    }),
  );
}

/** A node: a ledger over Redis with a replica of its own. Closed at the end of the test. */
export async function openTestRedisLedger(
  redis: Redis,
  clock: Clock,
  options: Partial<RedisLedgerOptions> = {},
): Promise<RedisLedger> {
  const ledger = await openRedisLedger({
    redis,
    clock,
    log: createCapturedLog(),
    newId: () => randomBytes(6).toString("hex"),
    replica: options.replica ?? (await createTestReplica(clock)),
    quota: { timezone: "Asia/Shanghai", monthly_reset_day: 1 },
    state: { lease_seconds: 30, min_replicas: 0 },
    storage: { durability: "interval" },
    ...options,
  });
  onTestFinished(() => ledger.close().catch(() => undefined));
  return ledger;
}

/** A connection on which every call arrives twice, as if its first answer had been lost. */
export function sentTwice(redis: Redis): Redis {
  return {
    ...redis,
    async call(...given) {
      const first = redis.call(...given);
      first.catch(() => undefined);
      return redis.call(...given);
    },
  };
}
