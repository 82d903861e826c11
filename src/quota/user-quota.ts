import { Amounts } from "./amounts.ts";
import type { LedgerRecord } from "./charge-record.ts";
import type { BucketState, Charge, Limit, Per } from "./ledger.ts";
import type { PeriodAt } from "./period.ts";
import { UsageHistory, type OpenDay } from "./usage-history.ts";

/** The periods over which everything is counted, whatever the user's limits are now. */
const pers = ["day", "week", "month", "total"] as const satisfies readonly Per[];

/** What was used in one period. */
export interface Window {
  readonly per: Per;
  /** ms since the epoch. */
  readonly start: number;
  /** ms since the epoch; Infinity where it never ends. */
  readonly end: number;
  readonly used: Amounts;
}

/** What is known of a user's past; what is left out begins empty. */
interface Past {
  readonly windows?: readonly Window[];
  readonly days?: readonly OpenDay[];
}

/**
 * All that is counted for one user: what was used in the running day, week, month and in total, on which model, and
 * what requests on their way hold. Every charge counts in all windows, so a limit that a tier gains later finds the true use.
 */
export class UserQuota {
  readonly name: string;
  /** What requests on their way may still be charged, in whichever period that happens. */
  readonly reserved = new Amounts();
  readonly history: UsageHistory;
  readonly #periodAt: PeriodAt;
  #windows: readonly Window[];
  /** While the time is in [steadyFrom, steadyUntil), no window rolls. */
  #steadyFrom = 0;
  #steadyUntil = 0;

  constructor(name: string, periodAt: PeriodAt, nowMs: number, { windows = [], days = [] }: Past = {}) {
    this.name = name;
    this.history = new UsageHistory(periodAt, days);
    this.#periodAt = periodAt;
    this.#windows = pers.map((per) => windows.find((window) => window.per === per) ?? this.#windowAt(per, nowMs));
    this.#steady();
  }

  get windows(): readonly Window[] {
    return this.#windows;
  }

  /**
   * Empties the windows that are over. Must come before every look at them: a user who is out of quota makes no charges
   * that could do it. Returns the time that counts for this user: a clock that has stepped back is held at the start of
   * the newest window, so that no period comes twice.
   */
  advance(nowMs: number): number {
    const now = Math.max(nowMs, this.#steadyFrom);
    if (now >= this.#steadyUntil) {
      this.#windows = this.#windows.map((window) => (now < window.end ? window : this.#windowAt(window.per, now)));
      this.#steady();
    }
    return now;
  }

  /** The first limit that has no room for `ask`. Call advance() first. Limits in another currency don't count. */
  blocking(limits: readonly Limit[], ask: Charge): Limit | undefined {
    for (const limit of limits) {
      if (limit.metric === "cost" && limit.currency !== ask.currency) continue;
      const taken = this.#used(limit) + this.reserved.of(limit.metric, limit.currency);
      if (taken + ask[limit.metric] > limit.max) return limit;
    }
    return undefined;
  }

  /** Counts what a record of the journal says: at once, and again at recovery. */
  count(record: LedgerRecord): void {
    const { at } = record;
    this.advance(at);
    switch (record.kind) {
      case "charge":
        for (const { used } of this.#windows) used.add(record.charge);
        break;
      case "settle":
        this.#replace(at, record.first, record.final);
        break;
      case "adjust":
        for (const { used } of this.#windows) {
          used.add(record.added);
          used.subtract(record.taken);
        }
        break;
      case "reset":
        this.#restart(record.per, at);
    }
    this.history.dayAt(at).count(record);
  }

  /** The state of a limit. Call advance() first. */
  bucket(limit: Limit): BucketState {
    const used = this.#used(limit);
    const reserved = this.reserved.of(limit.metric, limit.currency);
    const end = this.#window(limit.per)?.end ?? Infinity;
    return {
      limit,
      used,
      reserved,
      remaining: Math.max(0, limit.max - used - reserved),
      resetAt: end === Infinity ? null : end,
    };
  }

  /**
   * Gives running windows the bounds that the rules in force now give them, and keeps what was used in them: for when
   * the time zone or the reset day have changed since they began. Returns whether any bound has changed.
   */
  realign(nowMs: number): boolean {
    const now = this.advance(nowMs);
    const before = this.#windows;
    this.#windows = before.map((window) => ({ ...this.#windowAt(window.per, now), used: window.used }));
    this.#steady();
    return before.some(({ start, end }, index) => {
      const after = this.#windows[index];
      return start !== after?.start || end !== after.end;
    });
  }

  /** Replaces a charge made at `atMs` by another, where that period is still running. */
  #replace(atMs: number, first: Charge, final: Charge): void {
    for (const { start, end, used } of this.#windows) {
      if (atMs < start || atMs >= end) continue;
      used.add(final);
      used.subtract(first);
    }
  }

  /**
   * Begins a window anew, one ms later than all charges made so far: so their settles pass it by, and advance() lets no
   * later charge be that early.
   */
  #restart(per: Per, atMs: number): void {
    this.#windows = this.#windows.map((window) => {
      if (window.per !== per) return window;
      return { ...window, start: Math.min(atMs + 1, window.end - 1), used: new Amounts() };
    });
    this.#steady();
  }

  #used(limit: Limit): number {
    return this.#window(limit.per)?.used.of(limit.metric, limit.currency) ?? 0;
  }

  #window(per: Per): Window | undefined {
    for (const window of this.#windows) if (window.per === per) return window;
    return undefined;
  }

  #windowAt(per: Per, nowMs: number): Window {
    const { start, end } = this.#periodAt(per, nowMs);
    return { per, start, end: end ?? Infinity, used: new Amounts() };
  }

  #steady(): void {
    this.#steadyFrom = Math.max(...this.#windows.map(({ start }) => start));
    this.#steadyUntil = Math.min(...this.#windows.map(({ end }) => end));
  }
}
