import type { LedgerRecord } from "./charge-record.ts";
import type { BucketState, Charge, QuotaLimit } from "../ledger.ts";
import { PeriodCounts, type Window } from "./period-counts.ts";
import type { PeriodAt } from "../period.ts";
import type { UsageDay } from "../usage/usage-day.ts";
import { UsageHistory, type OpenDay } from "../usage/usage-history.ts";

/** What is known of a user's past; what is left out begins empty. */
interface Past {
  readonly windows?: readonly Window[];
  /** By the id of the API key. */
  readonly keys?: ReadonlyMap<string, readonly Window[]>;
  readonly days?: readonly OpenDay[];
}

/** All that is counted for one user: in all, through each API key that has limits of its own, and on which model. */
export class UserQuota {
  readonly name: string;
  readonly history: UsageHistory;
  readonly counts: PeriodCounts;
  readonly #periodAt: PeriodAt;
  readonly #keys = new Map<string, PeriodCounts>();
  #now = 0;
  /** When the latest charge that may still be settled was made; above the present after the clock has stepped back. */
  #latestChargeAt = 0;

  constructor(name: string, periodAt: PeriodAt, { windows, keys = new Map(), days }: Past = {}) {
    this.name = name;
    this.history = new UsageHistory(periodAt, days);
    this.counts = new PeriodCounts(periodAt, windows);
    this.#periodAt = periodAt;
    for (const [id, past] of keys) this.#keys.set(id, new PeriodCounts(periodAt, past));
  }

  /** What was used through API keys with limits of their own, by their ids. */
  get keys(): ReadonlyMap<string, PeriodCounts> {
    return this.#keys;
  }

  /** As PeriodCounts.lookAt: must come before every look at the counts. Returns the time that counts for this user. */
  lookAt(nowMs: number): number {
    return (this.#now = this.counts.lookAt(nowMs));
  }

  /** As lookAt, for a reset: no charge that has been made is later than the time that it returns. */
  resetAt(nowMs: number): number {
    return Math.max(this.lookAt(nowMs), this.#latestChargeAt);
  }

  /** The first limit that has no room for `ask`. Call lookAt() first. Limits in another currency don't count. */
  blocking(limits: readonly QuotaLimit[], request: Charge): QuotaLimit | undefined {
    for (const limit of limits) if (!this.#countsOf(limit).hasRoom(limit, request)) return limit;
    return undefined;
  }

  /** The state of a limit. Call lookAt() first. */
  bucket(limit: QuotaLimit): BucketState {
    return this.#countsOf(limit).bucket(limit);
  }

  /** @param apiKey the key through which it is asked for; undefined for an access token */
  hold(charge: Charge, apiKey: string | undefined): void {
    this.counts.reserved.add(charge);
    if (apiKey !== undefined) this.#key(apiKey).reserved.add(charge);
  }

  /** Gives back what was held. */
  release(charge: Charge, apiKey: string | undefined): void {
    this.counts.reserved.subtract(charge);
    if (apiKey !== undefined) this.#key(apiKey).reserved.subtract(charge);
  }

  /** Counts what a record of the journal says: at once, and again at recovery. */
  count(record: LedgerRecord): void {
    const { at } = record;
    this.#now = this.counts.advance(at);
    const key = "apiKey" in record && record.apiKey !== undefined ? this.#key(record.apiKey) : undefined;
    key?.advance(this.#now);
    switch (record.kind) {
      case "charge":
        this.#latestChargeAt = Math.max(this.#latestChargeAt, at);
        this.counts.add(record.charge);
        key?.add(record.charge);
        break;
      case "settle":
        this.counts.replace(at, record.first, record.final);
        key?.replace(at, record.first, record.final);
        break;
      case "adjust":
        this.counts.add(record.added);
        this.counts.subtract(record.taken);
        break;
      case "reset":
        this.counts.restart(record.per, at);
    }
    this.history.dayAt(at).count(record);
  }

  /** As PeriodCounts.realign, for all counts. */
  realign(nowMs: number): boolean {
    const moved = [this.counts, ...this.#keys.values()].map((counts) => counts.realign(nowMs));
    return moved.includes(true);
  }

  /** As PeriodCounts.bringBack, for all counts and for the days that are still open. */
  bringBack(nowMs: number, today: UsageDay): boolean {
    this.#latestChargeAt = 0;
    const moved = [this.counts, ...this.#keys.values()].map((counts) => counts.bringBack(nowMs));
    const hasMoved = this.history.bringBack(nowMs, today);
    return hasMoved || moved.includes(true);
  }

  /** Forgets the API keys that are gone. */
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
