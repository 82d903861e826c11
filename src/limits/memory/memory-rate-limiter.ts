import type { Clock } from "../../lib/clock.ts";
import type {
  RateLimiter,
  RateLimitRefusal,
  RateLimitRequest,
  RateLimitState,
  RateTicket,
  RateUse,
} from "../rate-limiter.ts";
import type { RateRule, RateScope } from "../rate-rules.ts";
import {
  add,
  type Bucketed,
  changed,
  look,
  newBucketed,
  stateOf,
  statusOf,
  stepsOf,
  type Taking,
  unitsOf,
} from "./rule-buckets.ts";
import { createWindowTally } from "./window-tally.ts";

const hourMs = 3_600_000;
/** Buckets kept over all rules whose keys users bring with them; about 100 bytes each. */
const defaultMaxBuckets = 2_000_000;
/** Fewest of one rule, and as many as a rule has whose keys come from the config. */
const leastBuckets = 10_000;
/** What a client can have as many of as it likes. */
const unboundedScopes: readonly RateScope[] = ["user", "key", "address", "model"];

const noRules: readonly Bucketed[] = [];

/** The rules that may apply to a request; those by provider apart, since they decide who gets it. */
interface RuleSet {
  readonly plain: Bucketed[];
  readonly byProvider: Bucketed[];
}

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
  let forAll: RuleSet = { plain: [], byProvider: [] };
  let forGroup = new Map<string, RuleSet>();

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
    forAll = { plain: [], byProvider: [] };
    forGroup = new Map();
    for (const one of bucketed) {
      const { by, groups } = one.rule;
      for (const set of groups === null ? [forAll] : [...new Set(groups)].map(setOf)) {
        (by.includes("provider") ? set.byProvider : set.plain).push(one);
      }
    }
  }

  function setOf(group: string): RuleSet {
    let set = forGroup.get(group);
    if (set === undefined) forGroup.set(group, (set = { plain: [], byProvider: [] }));
    return set;
  }

  configure(options.rules);

  return {
    configure,
    take(request) {
      const now = time();
      const ofGroup = request.group === null ? undefined : forGroup.get(request.group);
      const takings: Taking[] = [];
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
      return bucketed.map((one) => statusOf(one, now));
    },
    statesOf(request) {
      const now = time();
      const takings: Taking[] = [];
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

function identity({ name, by, metric, ofGroup }: RateRule): string {
  return [name, metric, by.join("+"), ofGroup ?? ""].join("\n");
}

function hasUnboundedKeys({ by }: RateRule): boolean {
  return by.some((scope) => unboundedScopes.includes(scope));
}

/** The first provider whose rules all have room; if there is none, the one that has room first. */
function chooseProvider(
  rules: readonly Bucketed[],
  request: RateLimitRequest,
  now: number,
): { readonly provider: string | null; readonly takings: readonly Taking[] } {
  let best: { provider: string; takings: Taking[]; worst: Taking } | null = null;
  for (const provider of request.providers) {
    const takings: Taking[] = [];
    look(rules, request, provider, now, takings);
    const worst = worstOf(takings);
    if (worst === null) return { provider, takings };
    if (best === null || isWorse(best.worst, worst)) best = { provider, takings, worst };
  }
  return best ?? { provider: null, takings: [] };
}

/** The rule that refuses for the longest; null if none refuses. */
function worstOf(takings: readonly Taking[]): Taking | null {
  let worst: Taking | null = null;
  for (const taking of takings) if (taking.waitMs > 0 && (worst === null || isWorse(taking, worst))) worst = taking;
  return worst;
}

function isWorse(a: Taking, b: Taking): boolean {
  return isTooLarge(a) === isTooLarge(b) ? a.waitMs > b.waitMs : isTooLarge(a);
}

function isTooLarge({ rate, steps }: Taking): boolean {
  return steps > rate.room;
}

function refusalOf(worst: Taking, takings: readonly Taking[], request: RateLimitRequest): RateLimitRefusal {
  const { of, rate, steps } = worst;
  of.refused++;
  const { name, metric } = of.rule;
  return {
    rule: name,
    retryAfterMs: Math.max(...takings.map((taking) => taking.waitMs)),
    tooLarge: isTooLarge(worst)
      ? {
          metric,
          needed: Math.min(Number.MAX_SAFE_INTEGER, Math.ceil(steps / rate.cost)),
          most: Math.floor(rate.room / rate.cost),
        }
      : null,
    states: takings
      .filter((taking) => taking.of.rule.isShown)
      .map((taking) => {
        const state = stateOf(taking, taking.before, request);
        return taking.waitMs > 0 ? { ...state, resetMs: taking.waitMs } : state;
      }),
  };
}

/** What a request has taken, in steps of the rule as it is now: after a reload the same share of the room. */
function stepsNow({ of, rate, steps }: Taking): number {
  return of.rate === rate ? steps : Math.ceil((steps / rate.room) * of.rate.room);
}

/** As a class, since one is made for each request. */
class MemoryTicket implements RateTicket {
  readonly #request: RateLimitRequest;
  #takings: readonly Taking[];
  #provider: string | null;
  readonly #byProvider: readonly Bucketed[];
  readonly #time: () => number;
  #isSettled = false;

  /** @param byProvider the rules by provider that may apply */
  constructor(
    request: RateLimitRequest,
    takings: readonly Taking[],
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
    const takings: Taking[] = [];
    look(this.#byProvider, this.#request, provider, now, takings);
    const worst = worstOf(takings);
    if (worst !== null) return refusalOf(worst, takings, this.#request);
    for (const { of, key, before, steps } of takings) of.buckets.set(key, now, before + steps);
    for (const taking of this.#takings) {
      if (taking.of.rule.by.includes("provider")) add(taking.of, taking.key, -stepsNow(taking), now);
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
    for (const taking of this.#takings) this.#correct(taking, use, now);
  }

  #correct(taking: Taking, use: RateUse, now: number): void {
    const { of, key } = taking;
    const taken = stepsNow(taking);
    add(of, key, (use.wasSent ? this.#used(of, taken, use) : 0) - taken, now);
  }

  #used(of: Bucketed, taken: number, use: RateUse): number {
    if (of.rule.metric === "requests") return taken;
    return stepsOf(of, this.#request, unitsOf(of, this.#request, use.tokens, use.outputTokens));
  }
}
