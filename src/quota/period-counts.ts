import { Amounts } from "./amounts.ts";
import type { BucketState, Charge, Limit, Per } from "./ledger.ts";
import type { PeriodAt } from "./period.ts";

/** The periods over which everything is counted, whatever the limits are now. */
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

/**
 * What was used in the running day, week, month and in total, and what requests on their way hold: of a user, or of one
 * API key. Every charge counts in all windows, so a limit that is set later finds the true use.
 */
export class PeriodCounts {
  /** What requests on their way may still be charged, in whichever period that happens. */
  readonly reserved = new Amounts();
  readonly #periodAt: PeriodAt;
  #windows: readonly Window[];
  /** While the time is in [steadyFrom, steadyUntil), no window rolls. */
  #steadyFrom = 0;
  #steadyUntil = 0;

  /** @param windows what is known of the past; those left out begin empty */
  constructor(periodAt: PeriodAt, nowMs: number, windows: readonly Window[] = []) {
    this.#periodAt = periodAt;
    this.#windows = pers.map((per) => windows.find((window) => window.per === per) ?? this.#windowAt(per, nowMs));
    this.#steady();
  }

  get windows(): readonly Window[] {
    return this.#windows;
  }

  /**
   * Empties the windows that are over. Must come before every look at them: who is out of quota makes no charges that
   * could do it. Returns the time that counts here: a clock that has stepped back is held at the start of the newest
   * window, so that no period comes twice.
   */
  advance(nowMs: number): number {
    const now = Math.max(nowMs, this.#steadyFrom);
    if (now >= this.#steadyUntil) {
      this.#windows = this.#windows.map((window) => (now < window.end ? window : this.#windowAt(window.per, now)));
      this.#steady();
    }
    return now;
  }

  /** Whether a limit has room for `ask`. Call advance() first. A limit in another currency always has. */
  hasRoom(limit: Limit, ask: Charge): boolean {
    if (limit.metric === "cost" && limit.currency !== ask.currency) return true;
    const taken = this.#used(limit) + this.reserved.of(limit.metric, limit.currency);
    return taken + ask[limit.metric] <= limit.max;
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

  add(charge: Charge): void {
    for (const { used } of this.#windows) used.add(charge);
  }

  subtract(charge: Charge): void {
    for (const { used } of this.#windows) used.subtract(charge);
  }

  /** Replaces a charge made at `atMs` by another, where that period is still running. */
  replace(atMs: number, first: Charge, final: Charge): void {
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
  restart(per: Per, atMs: number): void {
    this.#windows = this.#windows.map((window) => {
      if (window.per !== per) return window;
      return { ...window, start: Math.min(atMs + 1, window.end - 1), used: new Amounts() };
    });
    this.#steady();
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
