import type { Clock } from "../../lib/clock.ts";
import type {
  RateLimiter,
  RateLimitRefusal,
  RateLimitRequest,
  RateLimitState,
  RateTicket,
  RateUse,
} from "../rate-limiter.ts";
import type { RateScope } from "../rate-names.ts";
import type { RateRule } from "../rate-rules.ts";
import {
  identity,
  isWorse,
  refusalOf,
  type RuleSets,
  ruleSets,
  stateOf,
  stepsOf,
  type Taking,
  unitsOf,
  worstOf,
} from "../rate-terms.ts";
import { type Bucketed, bucketedStatus, changed, correct, look, newBucketed } from "./rule-buckets.ts";
import { createWindowTally } from "./window-tally.ts";

const hourMs = 3_600_000;
/** Buckets kept over all rules whose keys users bring with them; about 100 bytes each. */
const defaultMaxBuckets = 2_000_000;
/** Fewest of one rule, and as many as a rule has whose keys come from the config. */
const leastBuckets = 10_000;
/** What a client can have as many of as it likes. */
const unboundedScopes: readonly RateScope[] = ["user", "key", "address", "model"];

const noRules: readonly Bucketed[] = [];

/** A rate limiter whose rules can be changed while it runs. */
export interface MemoryRateLimiter extends RateLimiter {
  /**
   * Uses other rules from now on. A rule that stays, by name and scopes, keeps its buckets: each is as full as before,
   * as a share of its burst.
   */
  configure(rules: readonly RateRule[]): void;
}

/**
 * A rate limiter in this process's memory: no timers and no locks, since each decision is one synchronous call. A
 * bucket is forgotten once nothing is taken of it, or if there are more than `maxBuckets`.
 */
export function createMemoryRateLimiter(options: {
  readonly rules: readonly RateRule[];
  readonly clock: Clock;
  readonly maxBuckets?: number;
}): MemoryRateLimiter {
  const { clock, maxBuckets = defaultMaxBuckets } = options;
  const time = createSteadyTime(clock);
  const freeDisconnects = createWindowTally({ windowMs: hourMs, clock });
  let bucketed: readonly Bucketed[] = [];
  let { forAll, forGroup }: RuleSets<Bucketed> = ruleSets([]);

  function configure(rules: readonly RateRule[]): void {
    const now = time();
    const known = new Map(bucketed.map((one) => [identity(one.rule), one]));
    const busy = rules.filter(hasUnboundedKeys).length;
    const share = Math.max(leastBuckets, 2 * Math.floor(maxBuckets / Math.max(1, busy) / 2));
    bucketed = rules.map((rule) => {
      const before = known.get(identity(rule));
      known.delete(identity(rule));
      if (before !== undefined) return changed(before, rule, now);
      return newBucketed(rule, hasUnboundedKeys(rule) ? share : leastBuckets, now);
    });
    ({ forAll, forGroup } = ruleSets(bucketed));
  }

  configure(options.rules);

  return {
    configure,
    take(request) {
      const now = time();
      const ofGroup = request.group === null ? undefined : forGroup.get(request.group);
      const takings: Taking<Bucketed>[] = [];
      look(forAll.plain, request, "", now, takings);
      if (ofGroup !== undefined) look(ofGroup.plain, request, "", now, takings);

      let provider: string | null = null;
      let byProvider: readonly Bucketed[] = noRules;
      if (forAll.byProvider.length > 0 || (ofGroup !== undefined && ofGroup.byProvider.length > 0)) {
        byProvider = [...forAll.byProvider, ...(ofGroup?.byProvider ?? [])];
        const choice = chooseProvider(byProvider, request, now);
        provider = choice.provider;
        takings.push(...choice.takings);
      }

      const worst = worstOf(takings);
      if (worst !== null) return refusalOf(worst, takings, request);
      for (const { of, key, before, steps } of takings) of.buckets.set(key, now, before + steps);
      return new MemoryTicket(request, takings, provider, byProvider, time);
    },
    takeFreeDisconnect: ({ user, max }) => freeDisconnects.take(user, max),
    rules() {
      const now = time();
      return bucketed.map((one) => bucketedStatus(one, now));
    },
    statesOf(request) {
      const now = time();
      const takings: Taking<Bucketed>[] = [];
      look(forAll.plain, request, "", now, takings);
      const ofGroup = request.group === null ? undefined : forGroup.get(request.group);
      if (ofGroup !== undefined) look(ofGroup.plain, request, "", now, takings);
      return takings.map((taking) => stateOf(taking, taking.before, request));
    },
  };
}

/**
 * Whole ms that pass. What a clock jumps back doesn't count: nobody waits for it again, and nothing flows off twice
 * that had not flowed off before.
 */
function createSteadyTime(clock: Clock): () => number {
  let last = Math.floor(clock.monotonic());
  let passed = 0;
  return () => {
    const now = Math.floor(clock.monotonic());
    if (now > last) passed += now - last;
    last = now;
    return passed;
  };
}

function hasUnboundedKeys({ by }: RateRule): boolean {
  return by.some((scope) => unboundedScopes.includes(scope));
}

/** The first provider whose rules all have room; if there is none, the one that has room first. */
function chooseProvider(
  rules: readonly Bucketed[],
  request: RateLimitRequest,
  now: number,
): { readonly provider: string | null; readonly takings: readonly Taking<Bucketed>[] } {
  let best: { provider: string; takings: Taking<Bucketed>[]; worst: Taking<Bucketed> } | null = null;
  for (const provider of request.providers) {
    const takings: Taking<Bucketed>[] = [];
    look(rules, request, provider, now, takings);
    const worst = worstOf(takings);
    if (worst === null) return { provider, takings };
    if (best === null || isWorse(best.worst, worst)) best = { provider, takings, worst };
  }
  return best ?? { provider: null, takings: [] };
}

/** As a class, since one is made for each request. */
class MemoryTicket implements RateTicket {
  readonly #request: RateLimitRequest;
  #takings: readonly Taking<Bucketed>[];
  #provider: string | null;
  readonly #byProvider: readonly Bucketed[];
  readonly #time: () => number;
  #isSettled = false;

  /** @param byProvider the rules by provider that may apply */
  constructor(
    request: RateLimitRequest,
    takings: readonly Taking<Bucketed>[],
    provider: string | null,
    byProvider: readonly Bucketed[],
    time: () => number,
  ) {
    this.#request = request;
    this.#takings = takings;
    this.#provider = provider;
    this.#byProvider = byProvider;
    this.#time = time;
  }

  get provider(): string | null {
    return this.#provider;
  }

  get states(): readonly RateLimitState[] {
    return this.#takings
      .filter(({ of }) => of.rule.isShown)
      .map((taking) => stateOf(taking, taking.before + taking.steps, this.#request));
  }

  move(provider: string): RateLimitRefusal | null {
    if (this.#isSettled || this.#provider === null || provider === this.#provider) return null;
    const now = this.#time();
    const takings: Taking<Bucketed>[] = [];
    look(this.#byProvider, this.#request, provider, now, takings);
    const worst = worstOf(takings);
    if (worst !== null) return refusalOf(worst, takings, this.#request);
    for (const { of, key, before, steps } of takings) of.buckets.set(key, now, before + steps);
    for (const taking of this.#takings) {
      if (taking.of.rule.by.includes("provider")) correct(taking, 0, now);
      else takings.push(taking);
    }
    this.#takings = takings;
    this.#provider = provider;
    return null;
  }

  settle(use: RateUse): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    const now = this.#time();
    for (const taking of this.#takings) {
      const { of } = taking;
      if (!use.wasSent) correct(taking, 0, now);
      else if (of.rule.metric !== "requests") {
        const units = unitsOf(of, this.#request, use.tokens, use.outputTokens);
        correct(taking, stepsOf(of, this.#request, units), now);
      }
    }
  }
}
