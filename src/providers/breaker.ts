/** When a breaker opens and for how long. */
export interface BreakerRule {
  /** Failures that open it, if they are at least half of the requests in the window. */
  readonly failures: number;
  /** Length of the window in which failures and successes are counted, in ms. */
  readonly windowMs: number;
  /** ms for which only trials pass. */
  readonly openMs: number;
  /**
   * Number of users who must have had failures, default 1. From 2 on, one user counts for at most half of `failures`: a
   * user who knows how to make a server fail must not be able to disable it for the others.
   */
  readonly users?: number;
}

export const breakerStates = ["closed", "open", "half_open"] as const;

export type BreakerState = (typeof breakerStates)[number];

/** The result of `enter` for a request that must not be sent. */
export const refused = -1;

/** Share of requests that pass as trials right after the breaker opens; it grows to all of them within openMs. */
const firstShare = 0.1;
/** By how much a successful trial raises that share. */
const shareOfSuccess = 0.3;

/**
 * A circuit breaker. Closed: all requests pass; open: none; half-open: one at a time, the probe, whose result decides.
 * If no other provider is left, a growing share passes as trials instead. Each request gets a permit and reports its
 * result with it, so that the late result of an older request can't be taken for that of a probe.
 *
 * Pure: times are parameters, in ms of a monotonic clock.
 */
export class Breaker {
  #rule: BreakerRule;
  #open = false;
  #openedAt = 0;
  /** The permit of the current probe; 0 if there is none. */
  #probe = 0;
  #lastPermit = 0;
  /** Permits up to this one belong to requests from before the breaker opened. */
  #oldPermit = 0;
  /** How much successful trials have added to the share, and the part of the next trial that has accumulated. */
  #earnedShare = 0;
  #due = 0;
  #outcomes: OutcomeWindow;

  constructor(rule: BreakerRule) {
    this.#rule = rule;
    this.#outcomes = new OutcomeWindow(rule.windowMs);
  }

  /** Uses another rule from now on. Counts in a window of another length don't compare, so they start again. */
  configure(rule: BreakerRule): void {
    if (rule.windowMs !== this.#rule.windowMs) this.#outcomes = new OutcomeWindow(rule.windowMs);
    this.#rule = rule;
  }

  state(now: number): BreakerState {
    if (!this.#open) return "closed";
    return now < this.#openedAt + this.#rule.openMs ? "open" : "half_open";
  }

  /** ms until a request may enter, as far as is known; 0 if one may now. */
  waitMs(now: number): number {
    if (!this.#open) return 0;
    const openUntil = this.#openedAt + this.#rule.openMs;
    // A probe may take any time; a second is a guess.
    return now < openUntil ? openUntil - now : this.#probe === 0 ? 0 : 1000;
  }

  /** Whether it is in the same state as a new breaker. */
  isFresh(now: number): boolean {
    return !this.#open && this.#outcomes.isEmpty(now);
  }

  /** Admits a request. Returns its permit, or `refused`. */
  enter(now: number): number {
    if (!this.#open) return 0;
    if (now < this.#openedAt + this.#rule.openMs || this.#probe !== 0) return refused;
    this.#probe = ++this.#lastPermit;
    return this.#probe;
  }

  /** Like enter(), if no other provider is left: an open breaker admits a share that grows with time and success. */
  enterAsTrial(now: number): number {
    if (!this.#open) return 0;
    this.#due += this.#share(now);
    if (this.#due < 1) return refused;
    this.#due -= 1;
    return ++this.#lastPermit;
  }

  /** The provider has begun to respond. */
  succeeded(permit: number, now = 0): void {
    if (!this.#open) {
      this.#outcomes.succeeded(now);
      return;
    }
    if (permit <= this.#oldPermit) return;
    this.#earnedShare += shareOfSuccess;
    if (permit === this.#probe || this.#share(now) >= 1) this.close();
  }

  /**
   * A failure that counts against the provider, before its response or in the middle of it.
   * @param user whose request it was
   * @param succeededBefore whether `succeeded` was called for the same request
   */
  failed(permit: number, now: number, user = "", succeededBefore = false): void {
    if (this.#open) {
      if (permit > this.#oldPermit) this.#trip(now);
      return;
    }
    const { failures, users = 1 } = this.#rule;
    this.#outcomes.failed(user, now, succeededBefore);
    if (!this.#outcomes.isFailing(failures, users, now)) return;
    this.#trip(now);
    // The first trial may come at once: the provider may have recovered already.
    this.#due = 1 - firstShare;
  }

  /** The request ended without a result: its client disconnected, or it was itself invalid. The next one may probe. */
  abandoned(permit: number): void {
    if (this.#open && permit !== 0 && permit === this.#probe) this.#probe = 0;
  }

  /** Another process has opened its own: unless this one is open already, the next request is a probe. */
  suspect(now: number): void {
    if (this.#open) return;
    this.#trip(now - this.#rule.openMs);
  }

  /** Closes and resets it, after a successful probe or by the operator. */
  close(): void {
    this.#open = false;
    this.#reset();
  }

  #share(now: number): number {
    const grown = firstShare + (1 - firstShare) * ((now - this.#openedAt) / this.#rule.openMs);
    return Math.min(1, grown + this.#earnedShare);
  }

  #trip(now: number): void {
    this.#open = true;
    this.#openedAt = now;
    this.#reset();
  }

  #reset(): void {
    this.#probe = 0;
    this.#oldPermit = this.#lastPermit;
    this.#earnedShare = 0;
    this.#due = 0;
    this.#outcomes.clear();
  }
}

/** Number of slices; the window moves by one slice at a time. */
const slices = 8;
/** Most users counted separately in a slice; with more, the provider is clearly failing. */
const maxUsers = 64;

/** Recent results of a provider: successes, and failures by user. Times are in ms of a monotonic clock. */
export class OutcomeWindow {
  readonly #sliceMs: number;
  readonly #successes = new Int32Array(slices);
  readonly #failures: (Map<string, number> | null)[] = Array.from({ length: slices }, () => null);
  /** Slices of time since the clock's zero. */
  #slice = 0;

  /** @param windowMs length of the window */
  constructor(windowMs: number) {
    this.#sliceMs = windowMs / slices;
  }

  succeeded(now: number): void {
    this.#count(now, 1);
  }

  /** @param succeededBefore whether the same request has been counted as a success before */
  failed(user: string, now: number, succeededBefore: boolean): void {
    this.#count(now, succeededBefore ? -1 : 0);
    const users = (this.#failures[this.#slice % slices] ??= new Map<string, number>());
    if (users.has(user) || users.size < maxUsers) users.set(user, (users.get(user) ?? 0) + 1);
  }

  /**
   * Whether there were so many failures, at least half of the requests, that the provider must be the cause.
   * @param users how many must have had failures; from 2 on, one user counts for at most half of `failures`
   */
  isFailing(failures: number, users: number, now: number): boolean {
    this.#moveTo(now);
    const byUser = new Map<string, number>();
    for (const slice of this.#failures) {
      for (const [user, count] of slice ?? []) byUser.set(user, (byUser.get(user) ?? 0) + count);
    }
    const most = users > 1 ? Math.ceil(failures / 2) : failures;
    let counted = 0;
    for (const count of byUser.values()) counted += Math.min(count, most);
    const successes = this.#successes.reduce((sum, count) => sum + count, 0);
    return byUser.size >= users && counted >= failures && counted >= successes;
  }

  /** Whether it has no results. */
  isEmpty(now: number): boolean {
    this.#moveTo(now);
    return this.#failures.every((users) => users === null) && this.#successes.every((count) => count === 0);
  }

  clear(): void {
    this.#successes.fill(0);
    this.#failures.fill(null);
  }

  #count(now: number, successes: number): void {
    this.#moveTo(now);
    const at = this.#slice % slices;
    this.#successes[at] = (this.#successes[at] ?? 0) + successes;
  }

  #moveTo(now: number): void {
    const slice = Math.floor(now / this.#sliceMs);
    if (slice === this.#slice) return;
    if (slice - this.#slice >= slices) this.clear();
    else {
      for (let passed = this.#slice + 1; passed <= slice; passed++) {
        this.#successes[passed % slices] = 0;
        this.#failures[passed % slices] = null;
      }
    }
    this.#slice = slice;
  }
}
