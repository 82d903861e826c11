import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import type { Redis } from "../../src/lib/redis/redis.ts";
import type { Hold, QuotaLimit } from "../../src/quota/ledger.ts";
import type { MemoryLedger } from "../../src/quota/memory/memory-ledger.ts";
import type { RedisLedger } from "../../src/quota/redis/redis-ledger.ts";
import { openReplica, type Replica } from "../../src/replica/replica.ts";
import { createCapturedLog } from "./captured-log.ts";
import { charge, openTestLedger, settlement } from "./ledger.ts";
import { openTestRedisLedger } from "./redis-ledger.ts";
import { openTestRedis } from "./redis-server.ts";
import { tempDir } from "./temp-dir.ts";

/** One process of several that share a state: a ledger over Redis, and the users folder that follows it. */
export interface ReplicaNode {
  readonly folder: string;
  readonly redis: Redis;
  readonly memory: MemoryLedger;
  readonly replica: Replica;
  readonly ledger: RedisLedger;
  readonly log: ReturnType<typeof createCapturedLog>;
  /** As a process that ends without a word, but for its folder, which can be opened again. */
  close(): Promise<void>;
}

export interface ReplicaNodeOptions {
  readonly url: string;
  readonly keyPrefix: string;
  readonly folder?: string;
  readonly timeoutMs?: number;
  /** Its name; default: a random one. Of processes that know as much, the first by name puts back what is lost. */
  readonly node?: string;
  readonly keepForMs?: number;
  /** How often the logs are read. Default: 20. */
  readonly pollMs?: number;
  /** How often it says what it has on disk. Default: 50. */
  readonly reportMs?: number;
  /** Serves without Redis: this part of each limit, for so long. */
  readonly allowance?: { readonly share: number; readonly allowanceMs: number };
  readonly leaseSeconds?: number;
  /** The connection of the ledger. */
  readonly wrap?: (redis: Redis) => Redis;
}

export async function openReplicaNode(options: ReplicaNodeOptions): Promise<ReplicaNode> {
  const { url, keyPrefix, folder = tempDir(), timeoutMs = 1000, keepForMs = 600_000, pollMs = 20 } = options;
  const log = createCapturedLog();
  const redis = await openTestRedis({ url, keyPrefix, timeoutMs });
  const memory = await openTestLedger(folder, systemClock, {
    storage: { sync_interval_ms: 5, journal_archive_days: 90 },
  });
  const replica = await openReplica({
    redis,
    usersDir: folder,
    ledger: memory,
    clock: systemClock,
    log,
    keepForMs,
    ...(options.node === undefined ? {} : { node: options.node }),
    pollMs,
    graceMs: 300,
    reportMs: options.reportMs ?? 50,
  });
  const { allowance, leaseSeconds = 30, wrap = (own: Redis) => own } = options;
  const away = { folder: join(folder, ".away"), syncIntervalMs: 5 };
  const ledger = await openTestRedisLedger(wrap(redis), systemClock, {
    replica,
    log,
    state: { lease_seconds: leaseSeconds, min_replicas: 0 },
    allowance: allowance === undefined ? undefined : { ...allowance, ...away },
  });
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> =>
    (closing ??= (async () => {
      await ledger.close().catch(() => undefined);
      await replica.close();
      await memory.close();
    })());
  onTestFinished(close);
  return { folder, redis, memory, replica, ledger, log, close };
}

/** Requests and tokens in total. */
export const totals: readonly QuotaLimit[] = [
  { metric: "requests", per: "total", max: 1e9 },
  { metric: "tokens", per: "total", max: 1e9 },
];

/** One request, of 70 tokens. */
export async function spendOnce({ ledger }: ReplicaNode, user: string, group?: string): Promise<void> {
  const request = { user, group, limits: totals, requestId: `r${Math.random()}`, model: "m" };
  const hold = await ledger.reserve({ ...request, upperBound: charge(1, 100) });
  await hold.commit(charge(1, 10));
  await hold.settle(settlement(charge(1, 70)));
}

/** What a client has seen. */
export interface Account {
  settled: number;
}

/**
 * Spends until it is stopped, each request 10 tokens first and 70 at the end, and counts what was acknowledged.
 * @returns stops it, and waits for what runs
 */
export function spendAlways(
  { ledger }: Pick<ReplicaNode, "ledger">,
  users: readonly string[],
  seen: Map<string, Account>,
  group?: string,
): () => Promise<void> {
  let stopped = false;
  const workers = users.map(async (user) => {
    const account: Account = seen.get(user) ?? { settled: 0 };
    seen.set(user, account);
    while (!stopped) {
      let hold: Hold;
      try {
        const requestId = `r-${randomBytes(6).toString("hex")}`;
        hold = await ledger.reserve({ user, group, limits: totals, requestId, model: "m", upperBound: charge(1, 100) });
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 5));
        continue;
      }
      await hold.commit(charge(1, 10));
      await hold.settle(settlement(charge(1, 70)));
      account.settled++;
    }
  });
  return async () => {
    stopped = true;
    await Promise.all(workers);
  };
}
