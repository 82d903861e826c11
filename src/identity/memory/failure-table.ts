import { createGenerationMap } from "../../lib/generation-map.ts";

/** The failures of many accounts or addresses, bounded in number. */
export interface FailureTable {
  /** The tally of a key, if it has one that still counts. */
  find(key: string): FailureTally | undefined;
  /** The tally of a key, created if there is none. */
  obtain(key: string): FailureTally;
  /** Moves a tally to its place after its failures changed: it is now the last to be evicted. */
  place(tally: FailureTally): void;
  /** Forgets a key; returns whether it had failures. */
  forget(key: string): boolean;
  /** Tallies without free failures left, roughly the oldest first. */
  escalated(): Iterable<FailureTally>;
  readonly rule: BackoffRule;
  /** The number of tallies. */
  readonly size: number;
}

/**
 * Keeps at most `max` tallies, half of them for keys without free failures left. The halves don't evict each other:
 * however many keys fail once, a key that has to wait is evicted only by others that have to wait too.
 *
 * @param rule read at every use: its figures may change
 * @param max a multiple of 4, or Infinity
 */
export function createFailureTable(rule: BackoffRule, max: number, monotonic: () => number): FailureTable {
  const lifeMs = (): number => rule.quietMs + rule.maxWaitMs;
  const light = createGenerationMap<FailureTally>(max / 2, lifeMs, monotonic);
  const heavy = createGenerationMap<FailureTally>(max / 2, lifeMs, monotonic);

  function find(key: string): FailureTally | undefined {
    const tally = heavy.get(key) ?? light.get(key);
    if (tally?.isStale(rule, monotonic()) !== true) return tally;
    remove(key);
    return undefined;
  }

  function remove(key: string): void {
    light.delete(key);
    heavy.delete(key);
  }

  return {
    find,
    obtain(key) {
      const known = find(key);
      if (known !== undefined) return known;
      const made = new FailureTally(key, monotonic());
      light.set(key, made);
      return made;
    },
    place(tally) {
      const [to, from] = tally.failures < rule.freeFailures ? [light, heavy] : [heavy, light];
      from.delete(tally.key);
      to.set(tally.key, tally);
    },
    forget(key) {
      const had = find(key);
      remove(key);
      return had !== undefined && had.failures > 0;
    },
    rule,
    escalated: () => heavy.values(),
    get size() {
      return light.size + heavy.size;
    },
  };
}

/** How many failures are free, and how long to wait after further ones. */
export interface BackoffRule {
  readonly freeFailures: number;
  /** ms to wait once the free failures are used up; doubles with each further failure. */
  readonly firstWaitMs: number;
  readonly maxWaitMs: number;
  /** ms without failures, after the end of the last wait, until all is forgotten. */
  readonly quietMs: number;
}

/** The effect of a failure: waits begin with it, or have now reached the longest one. */
type Escalation = "begun" | "longest";

/** Retry-After, in ms, if the outcome of another attempt is pending. */
const retryAfterMs = 1000;

/** The failed attempts of one account or address. Times are monotonic ms. A class because there may be 100,000. */
class FailureTally {
  readonly key: string;
  failures = 0;
  /** Running attempts, whose outcome is unknown yet. */
  #pending = 0;
  /** When the next attempt is allowed. */
  #openAt: number;

  constructor(key: string, nowMs: number) {
    this.key = key;
    this.#openAt = nowMs;
  }

  /**
   * How long an attempt has to wait, in ms; 0 if it is allowed now. After the free failures, attempts are allowed one
   * at a time. With `strict`, running attempts count as failed from the start: guesses sent concurrently must not all
   * pass before the first of them is counted.
   */
  waitMs(rule: BackoffRule, nowMs: number, strict: boolean): number {
    if (nowMs < this.#openAt) return this.#openAt - nowMs;
    if (this.#pending === 0) return 0;
    const counted = strict ? this.failures + this.#pending : this.failures;
    return counted >= rule.freeFailures ? retryAfterMs : 0;
  }

  begin(): void {
    this.#pending += 1;
  }

  /** Ends an attempt, whatever the outcome. */
  end(): void {
    this.#pending = Math.max(0, this.#pending - 1);
  }

  /** Counts a failure. */
  fail(rule: BackoffRule, nowMs: number): Escalation | null {
    const before = this.#waitAfter(rule);
    this.failures += 1;
    const wait = this.#waitAfter(rule);
    this.#openAt = nowMs + wait;
    if (wait === 0) return null;
    if (before === 0) return "begun";
    return wait === rule.maxWaitMs && before < wait ? "longest" : null;
  }

  /** Forgets the failures; running attempts are still counted. */
  clear(nowMs: number): void {
    this.failures = 0;
    this.#openAt = nowMs;
  }

  /** Whether it can be removed. */
  isIdle(): boolean {
    return this.failures === 0 && this.#pending === 0;
  }

  isStale(rule: BackoffRule, nowMs: number): boolean {
    return nowMs - this.#openAt >= rule.quietMs;
  }

  #waitAfter({ freeFailures, firstWaitMs, maxWaitMs }: BackoffRule): number {
    const paid = this.failures - freeFailures;
    return paid < 0 ? 0 : Math.min(firstWaitMs * 2 ** paid, maxWaitMs);
  }
}
