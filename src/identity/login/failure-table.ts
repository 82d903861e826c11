import { createGenerationMap } from "../../lib/generation-map.ts";

/** The tallies of many accounts or addresses, of which there may be any number. */
export interface FailureTable {
  /** The tally of a key, if it has one that still counts. */
  find(key: string): FailureTally | undefined;
  /** The tally of a key, made where there is none. */
  obtain(key: string): FailureTally;
  /** Puts a tally where it belongs after its failures have changed: it is now the last to be forgotten. */
  place(tally: FailureTally): void;
  /** Forgets a key; says whether it had failures. */
  forget(key: string): boolean;
  /** Those whose free failures are used up, roughly the longest ago first. */
  escalated(): Iterable<FailureTally>;
  readonly rule: BackoffRule;
  /** Tallies that are kept now. */
  readonly size: number;
}

/**
 * Keeps at most `max` tallies, half of them for keys whose free failures are used up. The halves don't push each other
 * out: however many keys fail once, a key that has to wait is only forgotten for others that have earned a wait too.
 *
 * @param max a multiple of 4, or Infinity
 */
export function createFailureTable(rule: BackoffRule, max: number, monotonic: () => number): FailureTable {
  const lifeMs = rule.quietMs + rule.maxWaitMs;
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

/** How many failures are free, and how long to wait after the others. */
export interface BackoffRule {
  readonly freeFailures: number;
  /** ms to wait once the free failures are used up; doubles with each further one. */
  readonly firstWaitMs: number;
  readonly maxWaitMs: number;
  /** ms after the end of the last wait in which nothing must fail, until all is forgotten. */
  readonly quietMs: number;
}

/** What a failure has led to: waits begin with it, or have now reached the longest one. */
type Escalation = "begun" | "longest";

/** ms after which it is worth asking again where the outcome of another attempt has to be awaited. */
const askAgainMs = 1000;

/** The failed attempts of one account or address. Times are monotonic ms. A class because there may be 100,000. */
class FailureTally {
  readonly key: string;
  failures = 0;
  /** Attempts that run now, of which nobody knows yet how they end. */
  #pending = 0;
  /** When the next attempt may be made. */
  #openAt: number;

  constructor(key: string, nowMs: number) {
    this.key = key;
    this.#openAt = nowMs;
  }

  /**
   * How long an attempt has to wait, in ms; 0 where it may be made now. After the free failures attempts are made one
   * at a time. With `strict` those that run now count as failed from the start: guesses that are sent together must
   * not all pass before the first of them has been counted.
   */
  waitMs(rule: BackoffRule, nowMs: number, strict: boolean): number {
    if (nowMs < this.#openAt) return this.#openAt - nowMs;
    if (this.#pending === 0) return 0;
    const counted = strict ? this.failures + this.#pending : this.failures;
    return counted >= rule.freeFailures ? askAgainMs : 0;
  }

  begin(): void {
    this.#pending += 1;
  }

  /** Ends an attempt, however it went. */
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

  /** Forgets the failures; attempts that run go on being counted. */
  clear(nowMs: number): void {
    this.failures = 0;
    this.#openAt = nowMs;
  }

  /** Whether nothing hangs on it any more. */
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
