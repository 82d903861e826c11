import type { RateLimitRequest, RateRuleStatus } from "../rate-limiter.ts";
import type { RateRule } from "../rate-rules.ts";
import { overused, ownLeft, putBackRate, waitMs } from "../gcra.ts";
import { keyOf, type RatedRule, ratedRule, statusOf, stepsOfTake, type Taking, unitsOf } from "../rate-terms.ts";
import { type BucketTable, createBucketTable } from "./bucket-table.ts";

/** A rule with its buckets. A ticket keeps it, so that it is corrected by the rule that it was taken from. */
export interface Bucketed extends RatedRule {
  readonly buckets: BucketTable;
  /** What was put back lately although it had flowed off, at the rate that putBackRate says. */
  readonly lately: BucketTable;
}

/** @param maxBuckets an even number */
export function newBucketed(rule: RateRule, maxBuckets: number, now: number): Bucketed {
  const rated = ratedRule(rule);
  return Object.assign(rated, {
    buckets: createBucketTable(maxBuckets, rated.rate, now),
    lately: createBucketTable(maxBuckets, putBackRate(rated.rate), now),
  });
}

export function changed(one: Bucketed, rule: RateRule, now: number): Bucketed {
  const { refused } = one;
  const { cost, speed, room } = one.rate;
  Object.assign(one, ratedRule(rule), { refused });
  if (one.rate.cost !== cost || one.rate.speed !== speed || one.rate.room !== room) {
    one.buckets.useRate(one.rate, now);
    one.lately.useRate(putBackRate(one.rate), now);
  }
  return one;
}

/** Adds what a request would take of each rule that applies to it. */
export function look(
  rules: readonly Bucketed[],
  request: RateLimitRequest,
  provider: string,
  now: number,
  takings: Taking<Bucketed>[],
): void {
  for (const of of rules) {
    const { rule, rate, tiers, buckets } = of;
    if (tiers !== null && !tiers.has(request.tier)) continue;
    const units = unitsOf(of, request, request.tokens, request.outputTokens);
    const key = units === 0 ? null : keyOf(rule.by, request, provider);
    if (key === null) continue;
    const before = buckets.taken(key, now);
    const steps = stepsOfTake(of, request, units);
    takings.push({ of, rate, key, before, steps, waitMs: waitMs(rate, before, steps), at: now });
  }
}

export function bucketedStatus(one: Bucketed, now: number): RateRuleStatus {
  return statusOf(one, { buckets: one.buckets.size(now), evicted: one.buckets.evicted() });
}

/** Corrects what a request has taken to the steps that it has used. */
export function correct(taking: Taking<Bucketed>, used: number, now: number): void {
  const { of, key, at } = taking;
  const { rate, buckets } = of;
  const steps = stepsNow(taking);
  if (used === steps) return;
  const taken = buckets.taken(key, now);
  if (used > steps) {
    buckets.set(key, now, overused(rate, taken, used - steps));
    return;
  }
  const unused = steps - used;
  const own = Math.min(unused, ownLeft(rate, steps, now - at));
  const left = Math.max(0, taken - own);
  const next = left - putBack(of, key, Math.min(unused - own, left), now);
  if (next !== taken) buckets.set(key, now, next);
}

/** Steps that can be put back although they have flowed off, of so many; they count from now on. */
function putBack({ rate, lately }: Bucketed, key: string, steps: number, now: number): number {
  if (steps === 0) return 0;
  const before = lately.taken(key, now);
  const more = Math.min(steps, rate.room - before);
  if (more > 0) lately.set(key, now, before + more);
  return more;
}

/** What a request has taken, in steps of the rule as it is now: after a reload the same share of the room. */
function stepsNow({ of, rate, steps }: Taking<Bucketed>): number {
  return of.rate === rate ? steps : Math.ceil((steps / rate.room) * of.rate.room);
}
