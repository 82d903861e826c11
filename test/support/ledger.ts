import type { Clock } from "../../src/lib/clock.ts";
import type { FileOps } from "../../src/lib/files/file-ops.ts";
import type { Awaitable } from "../../src/lib/awaitable.ts";
import type { BucketState, Charge, Ledger, QuotaLimit, ReserveRequest, Settlement } from "../../src/quota/ledger.ts";
import { openMemoryLedger, type MemoryLedger, type MemoryLedgerOptions } from "../../src/quota/memory/memory-ledger.ts";
import { createCapturedLog } from "./captured-log.ts";

export interface TestLedgerOptions {
  readonly quota?: Partial<MemoryLedgerOptions["quota"]>;
  readonly storage?: Partial<MemoryLedgerOptions["storage"]>;
  readonly keepDays?: number;
  readonly repairIntervalMs?: number;
  readonly ops?: FileOps;
  readonly log?: MemoryLedgerOptions["log"];
}

/** Opens the ledger of a folder; it syncs and writes snapshots only where the test asks for it. */
export function openTestLedger(usersDir: string, clock: Clock, options: TestLedgerOptions = {}): Promise<MemoryLedger> {
  const storage = { durability: "interval", sync_interval_ms: 1e6, segment_bytes: 1 << 20 } as const;
  return openMemoryLedger({
    usersDir,
    clock,
    log: options.log ?? createCapturedLog(),
    quota: { timezone: "Asia/Shanghai", monthly_reset_day: 1, ...options.quota },
    storage: { ...storage, snapshot_interval_seconds: 1e6, ...options.storage },
    usage: { keep_days: options.keepDays ?? 90 },
    ...(options.repairIntervalMs === undefined ? {} : { repairIntervalMs: options.repairIntervalMs }),
    ...(options.ops === undefined ? {} : { ops: options.ops }),
  });
}

export function charge(requests: number, tokens = 0, cost = 0, currency = "CNY"): Charge {
  return { requests, tokens, cost, currency };
}

export const monthly = (max: number): QuotaLimit => ({ metric: "requests", per: "month", max });

/** Asks for one request of `alice`, unless told otherwise. */
export function ask(changes: Partial<ReserveRequest> = {}): ReserveRequest {
  return {
    user: "alice",
    limits: [monthly(500)],
    requestId: "req-1",
    model: "deepseek-chat",
    upperBound: charge(1),
    ...changes,
  };
}

export function settlement(final: Charge, outcome: Settlement["outcome"] = "completed"): Settlement {
  return {
    outcome,
    charge: final,
    usage: { input: final.tokens, cached: 0, output: 0, reasoning: 0 },
    estimated: false,
    price: "",
  };
}

/** What is used of each limit now. */
export function usedOf(ledger: MemoryLedger, limits?: readonly QuotaLimit[], user?: string): number[];
export function usedOf(ledger: Ledger, limits?: readonly QuotaLimit[], user?: string): Awaitable<number[]>;
export function usedOf(
  ledger: Ledger,
  limits: readonly QuotaLimit[] = [monthly(500)],
  user = "alice",
): Awaitable<number[]> {
  const used = (buckets: readonly BucketState[]) => buckets.map((bucket) => bucket.used);
  const buckets = ledger.buckets(user, limits);
  return buckets instanceof Promise ? buckets.then(used) : used(buckets);
}

/** One limit of each kind, all far away. */
export const everything: readonly QuotaLimit[] = [
  monthly(500),
  { metric: "tokens", per: "day", max: 1e6 },
  { metric: "tokens", per: "week", max: 1e6 },
  { metric: "cost", per: "total", max: 9e15, currency: "CNY" },
];

/** Spends one request, 70 tokens and 123 nano-yuan, of which 10 and 20 are charged first. */
export async function spend(ledger: MemoryLedger, user = "alice"): Promise<void> {
  const hold = ledger.reserve(ask({ user, upperBound: charge(1, 100, 200) }));
  await hold.commit(charge(1, 10, 20));
  await hold.settle(settlement(charge(1, 70, 123)));
}
