import { isGroupAccount } from "../accounts.ts";
import type { LedgerRecord } from "./charge-record.ts";
import type { BucketState, Charge, QuotaLimit } from "../ledger.ts";
import { PeriodCounts, type Window } from "./period-counts.ts";
import type { PeriodAt } from "../periods.ts";
import { createRecentShares, type RecentShares } from "./recent-shares.ts";
import { maxRowsOf, type OpenDay, type UsageDay, UsageHistory } from "../usage/usage-history.ts";

/** A user's recovered past; missing parts start empty. */
interface Past {
  readonly windows?: readonly Window[];
  /** By the id of the API key. */
  readonly keys?: ReadonlyMap<string, readonly Window[]>;
  readonly days?: readonly OpenDay[];
}

/**
 * All counts of one account, a user's or a group's: in total, for each API key, and per model. A group's history has its
 * members in the place of API keys; their periods are counted in their own accounts only.
 */
export class UserQuota {
  readonly name: string;
  readonly history: UsageHistory;
  readonly counts: PeriodCounts;
  readonly #periodAt: PeriodAt;
  readonly #keys = new Map<string, PeriodCounts>();
  readonly #recent: RecentShares | undefined;
  #now = 0;
  /** Time of the latest charge that may still be settled; in the future after the clock has stepped back. */
  #latestChargeAt = 0;

  constructor(name: string, periodAt: PeriodAt, { windows, keys = new Map(), days }: Past = {}) {
    this.name = name;
    this.history = new UsageHistory(periodAt, days, maxRowsOf(name));
    this.counts = new PeriodCounts(periodAt, windows);
    this.#periodAt = periodAt;
    this.#recent = isGroupAccount(name) ? createRecentShares() : undefined;
    for (const [id, past] of keys) this.#keys.set(id, new PeriodCounts(periodAt, past));
  }

  /** Counts for API keys with their own limits, by id. */
  get keys(): ReadonlyMap<string, PeriodCounts> {
    return this.#keys;
  }

  /** As PeriodCounts.lookAt: must come before every read of the counts. Returns the effective time for this user. */
  lookAt(nowMs: number): number {
    return (this.#now = this.counts.lookAt(nowMs));
  }

  /** As lookAt, for a reset: no charge made so far is later than the returned time. */
  resetAt(nowMs: number): number {
    return Math.max(this.lookAt(nowMs), this.#latestChargeAt);
  }

  /** As PeriodCounts.hasRoom. */
  hasRoom(limit: QuotaLimit, request: Charge, chargedAt?: number): boolean {
    return this.#countsOf(limit).hasRoom(limit, request, chargedAt);
  }

  /** As PeriodCounts.bucket. */
  bucket(limit: QuotaLimit, chargedAt?: number): BucketState {
    return this.#countsOf(limit).bucket(limit, chargedAt);
  }

  /** @param apiKey the id of the request's API key; undefined for an access token */
  hold(charge: Charge, apiKey: string | undefined): void {
    this.counts.reserved.add(charge);
    if (apiKey !== undefined) this.#key(apiKey).reserved.add(charge);
  }

  /** Releases a reservation. */
  release(charge: Charge, apiKey: string | undefined): void {
    this.counts.reserved.subtract(charge);
    if (apiKey !== undefined) this.#key(apiKey).reserved.subtract(charge);
  }

  /** Counts a record of the journal: at once, and again at recovery. A group's account gets it as asOfGroup makes it. */
  count(record: LedgerRecord): void {
    const { at } = record;
    this.#now = this.counts.advance(at);
    const apiKey = "apiKey" in record && !isGroupAccount(this.name) ? record.apiKey : undefined;
    const key = apiKey === undefined ? undefined : this.#key(apiKey);
    key?.advance(this.#now);
    switch (record.kind) {
      case "charge":
        this.#latestChargeAt = Math.max(this.#latestChargeAt, at);
        this.counts.add(record.charge, at);
        key?.add(record.charge, at);
        this.#recent?.note(record, record.charge);
        break;
      case "settle":
        this.counts.replace(at, record.first, record.final);
        key?.replace(at, record.first, record.final);
        this.#recent?.note(record, record.final);
        break;
      case "adjust":
        this.counts.add(record.added, at);
        this.counts.subtract(record.taken, at);
        break;
      case "reset":
        this.counts.restart(record.per, at, this.#recent?.since(at));
    }
    this.history.dayAt(at).count(record);
  }

  /** As PeriodCounts.realign, for all counts. */
  realign(nowMs: number): boolean {
    const moved = [this.counts, ...this.#keys.values()].map((counts) => counts.realign(nowMs));
    return moved.includes(true);
  }

  /** As PeriodCounts.bringBack, for all counts and for the open days. */
  bringBack(nowMs: number, today: UsageDay): boolean {
    this.#latestChargeAt = 0;
    const moved = [this.counts, ...this.#keys.values()].map((counts) => counts.bringBack(nowMs));
    const hasMoved = this.history.bringBack(nowMs, today);
    return hasMoved || moved.includes(true);
  }

  /** Forgets deleted API keys. */
  keepKeys(exists: (id: string) => boolean): void {
    for (const id of this.#keys.keys()) if (!exists(id)) this.#keys.delete(id);
  }

  #countsOf({ apiKey }: QuotaLimit): PeriodCounts {
    return apiKey === undefined ? this.counts : this.#key(apiKey);
  }

  #key(id: string): PeriodCounts {
    let counts = this.#keys.get(id);
    if (counts === undefined) this.#keys.set(id, (counts = new PeriodCounts(this.#periodAt)));
    counts.lookAt(this.#now);
    return counts;
  }
}
