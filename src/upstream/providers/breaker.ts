/** When a breaker opens and for how long. */
export interface BreakerRule {
  /** Failures that open it, if they are at least half of the answers in the window. */
  readonly failures: number;
  /** ms, from the first failure on, in which they count together. */
  readonly windowMs: number;
  /** ms for which nobody is let through. */
  readonly openMs: number;
}

export type BreakerState = "closed" | "open" | "half_open";

/** What `enter` answers to whoever must not ask. */
export const refused = -1;

/**
 * Keeps requests from a provider that fails. Closed, all pass; open, none; half-open, exactly one at a time, the probe,
 * whose answer decides. Each request enters with a ticket and shows it again with what came of it, so that a late word
 * of a request from before cannot decide for the probe.
 *
 * Pure: times are handed in, in ms of a monotonic clock. While nothing fails a request costs two comparisons.
 */
export class Breaker {
  readonly #rule: BreakerRule;
  #open = false;
  #openUntil = 0;
  /** The ticket of the probe under way; 0 where there is none. */
  #probe = 0;
  #lastTicket = 0;
  #failures = 0;
  #successes = 0;
  #windowEnd = 0;

  constructor(rule: BreakerRule) {
    this.#rule = rule;
  }

  state(now: number): BreakerState {
    if (!this.#open) return "closed";
    return now < this.#openUntil ? "open" : "half_open";
  }

  /** ms until somebody may enter, as far as is known; 0 where one may now. */
  waitMs(now: number): number {
    if (!this.#open) return 0;
    // A probe under way may take any time; a second is a guess like any other.
    return now < this.#openUntil ? this.#openUntil - now : this.#probe === 0 ? 0 : 1000;
  }

  /** Lets a request through or not. Returns its ticket, or `refused`. */
  enter(now: number): number {
    if (!this.#open) return 0;
    if (now < this.#openUntil || this.#probe !== 0) return refused;
    this.#probe = ++this.#lastTicket;
    return this.#probe;
  }

  /** The provider has begun to answer. */
  succeeded(ticket: number): void {
    if (!this.#open) {
      if (this.#failures > 0) this.#successes++;
    } else if (this.#isProbe(ticket)) {
      this.#open = false;
      this.#reset();
    }
  }

  /** The provider is to blame for a failure, before its answer or in the middle of it. */
  failed(ticket: number, now: number): void {
    if (this.#open) {
      if (this.#isProbe(ticket)) this.#trip(now);
      return;
    }
    if (now >= this.#windowEnd) {
      this.#reset();
      this.#windowEnd = now + this.#rule.windowMs;
    }
    this.#failures++;
    if (this.#failures >= this.#rule.failures && this.#failures >= this.#successes) this.#trip(now);
  }

  /** The request ended without a verdict: its client left, or it was at fault itself. The next one may probe. */
  left(ticket: number): void {
    if (this.#open && this.#isProbe(ticket)) this.#probe = 0;
  }

  /** Forgets what has been, by the operator's word. */
  close(): void {
    this.#open = false;
    this.#reset();
  }

  #isProbe(ticket: number): boolean {
    return ticket !== 0 && ticket === this.#probe;
  }

  #trip(now: number): void {
    this.#open = true;
    this.#openUntil = now + this.#rule.openMs;
    this.#reset();
  }

  #reset(): void {
    this.#probe = 0;
    this.#failures = 0;
    this.#successes = 0;
    this.#windowEnd = 0;
  }
}
