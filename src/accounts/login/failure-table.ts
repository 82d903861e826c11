import { createGenerationMap } from "../../lib/generation-map.ts";
import { type BackoffRule, FailureTally } from "./failure-tally.ts";

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
