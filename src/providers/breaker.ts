import { OutcomeWindow } from "./outcome-window.ts";

/** When a breaker opens and for how long. */
export interface BreakerRule {
  /** Failures that open it, if they are at least half of the answers in the window. */
  readonly failures: number;
  /** ms in which failures and successes count together. */
  readonly windowMs: number;
  /** ms for which nobody is let through but trials. */
  readonly openMs: number;
  /**
   * Users who must have met failures, default 1. From 2 on, one user counts for half of `failures` at the most: whoever
   * knows what makes a server fail must not be able to take it from the others.
   */
  readonly users?: number;
}

export type BreakerState = "closed" | "open" | "half_open";

/** What `enter` answers to whoever must not ask. */
export const refused = -1;

/** Share of requests that pass as trials right after the breaker has opened; it grows to all of them within openMs. */
const firstShare = 0.1;
/** By how much a trial that goes well raises that share. */
const shareOfSuccess = 0.3;

/**
 * Keeps requests from a provider that fails. Closed, all pass; open, none; half-open, exactly one at a time, the probe,
 * whose answer decides. Where there is nobody else to ask, a growing share passes as trials instead. Each request enters
 * with a permit and shows it again with what came of it, so that a late word of a request from before cannot decide for
 * a probe.
 *
 * Pure: times are handed in, in ms of a monotonic clock.
 */
export class Breaker {
  readonly #rule: BreakerRule;
  #open = false;
  #openedAt = 0;
  /** The permit of the probe under way; 0 where there is none. */
  #probe = 0;
  #lastPermit = 0;
  /** Permits up to this one are of requests from before the breaker opened. */
  #oldPermit = 0;
  /** What successful trials have added to their share, and how much of a trial is due. */
  #earnedShare = 0;
  #due = 0;
  readonly #outcomes: OutcomeWindow;

  constructor(rule: BreakerRule) {
    this.#rule = rule;
    this.#outcomes = new OutcomeWindow(rule.windowMs);
  }

  state(now: number): BreakerState {
    if (!this.#open) return "closed";
    return now < this.#openedAt + this.#rule.openMs ? "open" : "half_open";
  }

  /** ms until somebody may enter, as far as is known; 0 where one may now. */
  waitMs(now: number): number {
    if (!this.#open) return 0;
    const openUntil = this.#openedAt + this.#rule.openMs;
    // A probe under way may take any time; a second is a guess like any other.
    return now < openUntil ? openUntil - now : this.#probe === 0 ? 0 : 1000;
  }

  /** Whether nothing is remembered that a new breaker would not know. */
  isFresh(now: number): boolean {
    return !this.#open && this.#outcomes.isEmpty(now);
  }

  /** Lets a request through or not. Returns its permit, or `refused`. */
  enter(now: number): number {
    if (!this.#open) return 0;
    if (now < this.#openedAt + this.#rule.openMs || this.#probe !== 0) return refused;
    this.#probe = ++this.#lastPermit;
    return this.#probe;
  }

  /** The same where nobody else can be asked: of an open breaker, a share passes that grows with time and success. */
  enterAsTrial(now: number): number {
    if (!this.#open) return 0;
    this.#due += this.#share(now);
    if (this.#due < 1) return refused;
    this.#due -= 1;
    return ++this.#lastPermit;
  }

  /** The provider has begun to answer. */
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
   * The provider is to blame for a failure, before its answer or in the middle of it.
   * @param user whose request it was
   * @param succeededBefore whether `succeeded` was told of the same request
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
    // The first trial may come at once: the provider may be well again already.
    this.#due = 1 - firstShare;
  }

  /** The request ended without a verdict: its client left, or it was at fault itself. The next one may probe. */
  abandoned(permit: number): void {
    if (this.#open && permit !== 0 && permit === this.#probe) this.#probe = 0;
  }

  /** Forgets what has been: a probe went well, or the operator says so. */
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
