import { Amounts } from "../amounts.ts";
import type { BucketState, Charge, QuotaLimit } from "../ledger.ts";
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
  /** The window before each of these. In memory only: what may still be charged in it does not outlive the process. */
  #ended: readonly Window[] = [];
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
    if (this.#shown !== this.#windows) {
      const over = this.#windows.filter((window, index) => window !== this.#shown[index]);
      this.#ended = [...over, ...this.#ended.filter(({ per }) => !over.some((window) => window.per === per))];
      this.#adopt(this.#shown);
    }
    return at;
  }

  /**
   * Whether a limit has room for `request`. Call lookAt() first. A limit in another currency always has.
   * @param chargedAt the time of the charge that it is added to: its period, which may be over, must have room as well
   */
  hasRoom(limit: QuotaLimit, request: Charge, chargedAt = Infinity): boolean {
    if (limit.metric === "cost" && limit.currency !== request.currency) return true;
    const taken = usedIn(this.#fuller(limit, chargedAt), limit) + this.reserved.of(limit.metric, limit.currency);
    return taken + request[limit.metric] <= limit.max;
  }

  /** The state of a limit. Call lookAt() first. With `chargedAt`, in the period that has less room. */
  bucket(limit: QuotaLimit, chargedAt = Infinity): BucketState {
    const window = this.#fuller(limit, chargedAt);
    const used = usedIn(window, limit);
    const reserved = this.reserved.of(limit.metric, limit.currency);
    const end = window?.end ?? Infinity;
    return {
      limit,
      used,
      reserved,
      remaining: Math.max(0, limit.max - used - reserved),
      resetAt: end === Infinity ? null : end,
    };
  }

  /** Call advance() first, as before `subtract`, `replace` and `restart`. */
  add(charge: Charge, atMs: number): void {
    for (const window of this.#windows) this.#usedAt(window, atMs)?.add(charge);
  }

  subtract(charge: Charge, atMs: number): void {
    for (const window of this.#windows) this.#usedAt(window, atMs)?.subtract(charge);
  }

  /** Replaces a charge made at `atMs` with another, if that period is still running or was the last one. */
  replace(atMs: number, first: Charge, final: Charge): void {
    for (const window of this.#windows) if (contains(window, atMs)) window.used.replace(first, final);
    for (const window of this.#ended) if (contains(window, atMs)) window.used.replace(first, final);
  }

  /**
   * Restarts a window one ms later than all charges made so far: so their settlements don't count in it, and no later
   * charge is that early.
   * @param later charges that were made later and are known already
   */
  restart(per: Per, atMs: number, later: readonly Charge[] = []): void {
    this.#adopt(
      this.#windows.map((window) => {
        // A period that has ended since is nobody's concern.
        if (window.per !== per || isLate(window, atMs)) return window;
        const used = new Amounts();
        for (const charge of later) used.add(charge);
        return { ...window, start: Math.min(atMs + 1, window.end - 1), used };
      }),
    );
  }

  /**
   * Gives running windows the bounds of the current rules, and keeps what was used in them: for when the time zone or
   * the reset day have changed since they began. Returns whether any bound has changed.
   */
  realign(nowMs: number): boolean {
    const now = Math.max(nowMs, this.#begunAt);
    // One that was reset has another beginning by right: charges made before don't count in it.
    return this.#rebound(now, ({ per, end }) => now < end && end !== this.#windowAt(per, now).end);
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

  /**
   * Where a charge of this time counts: in the window, or in the one before it where it comes late. If it is much
   * earlier, a clock was wrong, and it counts in the window. Undefined for a late one of a time that is not known any more.
   */
  #usedAt(window: Window, atMs: number): Amounts | undefined {
    if (!isLate(window, atMs)) return window.used;
    return this.#ended.find((ended) => ended.per === window.per && contains(ended, atMs))?.used;
  }

  /** Of the running window, and that of a charge if it is another one: the one in which more was used. */
  #fuller(limit: QuotaLimit, chargedAt: number): Window | undefined {
    const running = this.#window(limit.per);
    if (running === undefined || chargedAt >= running.start) return running;
    const isThen = (window: Window): boolean => window.per === limit.per && contains(window, chargedAt);
    const then = this.#windows.find(isThen) ?? this.#ended.find(isThen);
    return usedIn(then, limit) > usedIn(running, limit) ? then : running;
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

/**
 * How long after their time records come at the most, in ms: longer than a shared log is kept for a process that is away.
 * A group's account gets those of its members from several logs, so one of before its period, or of before a reset, may
 * come after later ones.
 */
const latestMs = 3_600_000;

function isLate({ start }: Window, atMs: number): boolean {
  return atMs < start && start - atMs <= latestMs;
}

function contains({ start, end }: Window, atMs: number): boolean {
  return atMs >= start && atMs < end;
}

function usedIn(window: Window | undefined, { metric, currency }: QuotaLimit): number {
  return window?.used.of(metric, currency) ?? 0;
}

/** It ended before all times, so that it always looks expired. */
function notBegun(per: Per): Window {
  return { per, start: 0, end: isEndless(per) ? Infinity : 0, used: new Amounts() };
}
