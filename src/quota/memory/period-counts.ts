import type { Adjusted, BucketState, Charge, QuotaLimit } from "../ledger.ts";
import { addAmounts, isAmount } from "../../lib/money.ts";
import type { CountMetric, Metric } from "../metrics.ts";
import { isEndless, type Per, type PeriodAt, periodNames } from "../periods.ts";

/** What was used in one period. */
export interface Window {
  readonly per: Per;
  /** ms since the epoch. */
  readonly start: number;
  /** ms since the epoch; Infinity if it never ends. */
  readonly end: number;
  readonly used: Amounts;
}

/**
 * What was used in the running period of each kind, and what running requests have reserved: of a user, or of one API
 * key. Every charge counts in all windows, so a limit that is set later applies to the true usage.
 */
export class PeriodCounts {
  /** What running requests may still be charged, in whichever period that happens. */
  readonly reserved = new Amounts();
  readonly #periodAt: PeriodAt;
  /** The windows in which something was counted last; only counting advances them. */
  #windows: readonly Window[];
  /** The windows as of the latest lookAt(): expired ones are replaced by empty windows of the current period. */
  #shown: readonly Window[];
  /** `shown` is valid while the time is in [shownFrom, shownUntil). */
  #shownFrom = 0;
  #shownUntil = 0;
  /** The start of the newest of `windows`. */
  #begunAt = 0;

  /** @param windows the known past; missing windows have not begun */
  constructor(periodAt: PeriodAt, windows: readonly Window[] = []) {
    this.#periodAt = periodAt;
    this.#windows = periodNames.map((per) => windows.find((window) => window.per === per) ?? notBegun(per));
    this.#shown = this.#windows;
    this.#adopt(this.#windows);
  }

  /** The windows in which something was counted last. */
  get windows(): readonly Window[] {
    return this.#windows;
  }

  /** Whether anything has ever been counted. */
  get hasBegun(): boolean {
    return this.#windows.some(({ per, end }) => !isEndless(per) && end > 0);
  }

  /** When the newest window began, in ms since the epoch; 0 if none has. In the future if a clock was wrong. */
  get begunAt(): number {
    return this.#begunAt;
  }

  /**
   * Sets the time for reading: expired windows then look empty. Must come before every read: a user without quota makes
   * no charges that could advance the time. It only affects reading and is never written to a file: so a clock that was
   * wrong for a while leaves no trace. Returns the effective time: if a clock has stepped back, the start of the newest
   * window in which something was counted, so that no period occurs twice.
   */
  lookAt(nowMs: number): number {
    const now = Math.max(nowMs, this.#begunAt);
    if (now < this.#shownFrom || now >= this.#shownUntil) this.#show(now);
    return now;
  }

  /** As lookAt, and starts the windows of that time: for what is counted next. */
  advance(atMs: number): number {
    const at = this.lookAt(atMs);
    if (this.#shown !== this.#windows) this.#adopt(this.#shown);
    return at;
  }

  /** Whether a limit has room for `request`. Call lookAt() first. A limit in another currency always has. */
  hasRoom(limit: QuotaLimit, request: Charge): boolean {
    if (limit.metric === "cost" && limit.currency !== request.currency) return true;
    const taken = this.#used(limit) + this.reserved.of(limit.metric, limit.currency);
    return taken + request[limit.metric] <= limit.max;
  }

  /** The state of a limit. Call lookAt() first. */
  bucket(limit: QuotaLimit): BucketState {
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

  /** Call advance() first, as before `subtract`, `replace` and `restart`. */
  add(charge: Charge): void {
    for (const { used } of this.#windows) used.add(charge);
  }

  subtract(charge: Charge): void {
    for (const { used } of this.#windows) used.subtract(charge);
  }

  /** Replaces a charge made at `atMs` with another, if that period is still running. */
  replace(atMs: number, first: Charge, final: Charge): void {
    for (const { start, end, used } of this.#windows) {
      if (atMs < start || atMs >= end) continue;
      used.add(final);
      used.subtract(first);
    }
  }

  /**
   * Restarts a window one ms later than all charges made so far: so their settlements don't count in it, and no later
   * charge is that early.
   */
  restart(per: Per, atMs: number): void {
    this.#adopt(
      this.#windows.map((window) => {
        if (window.per !== per) return window;
        return { ...window, start: Math.min(atMs + 1, window.end - 1), used: new Amounts() };
      }),
    );
  }

  /**
   * Gives running windows the bounds of the current rules, and keeps what was used in them: for when the time zone or
   * the reset day have changed since they began. Returns whether any bound has changed.
   */
  realign(nowMs: number): boolean {
    const now = Math.max(nowMs, this.#begunAt);
    return this.#rebound(now, ({ end }) => now < end);
  }

  /**
   * Gives windows that begin after this time, because a clock was wrong when something was counted in them, the bounds
   * of this time, and keeps what was used in them. Returns whether there were any.
   */
  bringBack(nowMs: number): boolean {
    return this.#rebound(nowMs, ({ start }) => start > nowMs);
  }

  #rebound(nowMs: number, concerns: (window: Window) => boolean): boolean {
    const before = this.#windows;
    this.#adopt(
      before.map((window) => (concerns(window) ? { ...this.#windowAt(window.per, nowMs), used: window.used } : window)),
    );
    return before.some(({ start, end }, index) => {
      const after = this.#windows[index];
      return start !== after?.start || end !== after.end;
    });
  }

  #used(limit: QuotaLimit): number {
    return this.#window(limit.per)?.used.of(limit.metric, limit.currency) ?? 0;
  }

  #window(per: Per): Window | undefined {
    for (const window of this.#shown) if (window.per === per) return window;
    return undefined;
  }

  #windowAt(per: Per, nowMs: number): Window {
    const { start, end } = this.#periodAt(per, nowMs);
    return { per, start, end: end ?? Infinity, used: new Amounts() };
  }

  #show(now: number): void {
    const isOver = ({ end }: Window): boolean => now >= end;
    if (this.#windows.some(isOver)) {
      this.#shown = this.#windows.map((window) => (isOver(window) ? this.#windowAt(window.per, now) : window));
    } else {
      this.#shown = this.#windows;
    }
    this.#bound();
  }

  #adopt(windows: readonly Window[]): void {
    this.#windows = windows;
    this.#shown = windows;
    this.#begunAt = Math.max(...windows.map(({ start }) => start));
    this.#bound();
  }

  /** At an earlier time some expired window may not have been expired. */
  #bound(): void {
    const overBefore = this.#windows.filter((window, index) => window !== this.#shown[index]).map(({ end }) => end);
    this.#shownFrom = Math.max(...this.#shown.map(({ start }) => start), ...overBefore);
    this.#shownUntil = Math.min(...this.#shown.map(({ end }) => end));
  }
}

/** It ended before all times, so that it always looks expired. */
function notBegun(per: Per): Window {
  return { per, start: 0, end: isEndless(per) ? Infinity : 0, used: new Amounts() };
}

/*
 * The arithmetic of charges: the one place that spells the metrics out, field by field, because every charge comes
 * through here some twenty times. A test goes through all metrics.
 */

/** Sums of each metric; cost per currency. Never below 0. */
export class Amounts implements Record<CountMetric, number> {
  requests = 0;
  tokens = 0;
  /** Nano-units by currency; contains only currencies that are or were above 0. */
  readonly costs = new Map<string, number>();

  /** One of the amounts; cost in nano-units of `currency`. */
  of(metric: Metric, currency: string | undefined): number {
    if (metric !== "cost") return this[metric];
    return currency === undefined ? 0 : (this.costs.get(currency) ?? 0);
  }

  add({ requests, tokens, cost, currency }: Charge): void {
    this.requests = addAmounts(this.requests, requests);
    this.tokens = addAmounts(this.tokens, tokens);
    if (cost > 0) this.costs.set(currency, addAmounts(this.costs.get(currency) ?? 0, cost));
  }

  subtract({ requests, tokens, cost, currency }: Charge): void {
    this.requests = Math.max(0, this.requests - requests);
    this.tokens = Math.max(0, this.tokens - tokens);
    const before = this.costs.get(currency) ?? 0;
    if (before > 0 && cost > 0) this.costs.set(currency, Math.max(0, before - cost));
  }
}

/** A charge of nothing. */
export function noCharge(currency: string): Charge {
  return { requests: 0, tokens: 0, cost: 0, currency };
}

/** Sums that may fall below 0, for the usage history; cost in nano-units by currency. */
export interface Sums extends Record<CountMetric, number> {
  readonly cost: Record<string, number>;
}

/** Sums of nothing. */
export function noSums(): Sums {
  return { requests: 0, tokens: 0, cost: {} };
}

/** Adds a charge to sums, or with -1 takes it away. Saturates, as the counters of periods do. */
export function addCharge(to: Sums, { requests, tokens, cost, currency }: Charge, sign: 1 | -1): void {
  to.requests = addSaturated(to.requests, sign * requests);
  to.tokens = addSaturated(to.tokens, sign * tokens);
  addCost(to, currency, sign * cost);
}

/** Adds sums to others. */
export function addSums(to: Sums, { requests, tokens, cost }: Readonly<Sums> | Adjusted): void {
  to.requests = addSaturated(to.requests, requests);
  to.tokens = addSaturated(to.tokens, tokens);
  for (const [currency, nano] of Object.entries(cost)) addCost(to, currency, nano);
}

/** Adds two numbers within the safe integers. */
export function addSaturated(a: number, b: number): number {
  return Math.max(-Number.MAX_SAFE_INTEGER, Math.min(a + b, Number.MAX_SAFE_INTEGER));
}

function addCost({ cost }: Sums, currency: string, nano: number): void {
  if (nano !== 0) cost[currency] = addSaturated(cost[currency] ?? 0, nano);
}

/** Whether all parts of a charge are amounts. */
export function isCharge({ requests, tokens, cost }: Charge): boolean {
  return isAmount(requests) && isAmount(tokens) && isAmount(cost);
}

/** Whether a charge is one of nothing. */
export function isNothing({ requests, tokens, cost }: Charge): boolean {
  return requests === 0 && tokens === 0 && cost === 0;
}

/** The rest of a hold after `charge` has been taken from it. */
export function restOf(held: Charge, charge: Charge): Charge {
  const cost = held.currency === charge.currency ? Math.max(0, held.cost - charge.cost) : held.cost;
  return {
    requests: Math.max(0, held.requests - charge.requests),
    tokens: Math.max(0, held.tokens - charge.tokens),
    cost,
    currency: held.currency,
  };
}

/** The sum of two charges in the same currency. */
export function sumOf(held: Charge, extra: Charge): Charge {
  return {
    requests: addAmounts(held.requests, extra.requests),
    tokens: addAmounts(held.tokens, extra.tokens),
    cost: addAmounts(held.cost, extra.cost),
    currency: held.currency,
  };
}
