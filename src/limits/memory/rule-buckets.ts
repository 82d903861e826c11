import type { RateLimitRequest, RateRuleStatus } from "../rate-limiter.ts";
import type { RateRule } from "../rate-rules.ts";
import { corrected, waitMs } from "../gcra.ts";
import { keyOf, type RatedRule, ratedRule, statusOf, stepsOfTake, type Taking, unitsOf } from "../rate-terms.ts";
import { type BucketTable, createBucketTable } from "./bucket-table.ts";

/** A rule with its buckets. A ticket keeps it, so that it is corrected by the rule that it was taken from. */
export interface Bucketed extends RatedRule {
  readonly buckets: BucketTable;
}

/** @param maxBuckets an even number */
export function newBucketed(rule: RateRule, maxBuckets: number, now: number): Bucketed {
  const rated = ratedRule(rule);
  return Object.assign(rated, { buckets: createBucketTable(maxBuckets, rated.rate, now) });
}

export function changed(one: Bucketed, rule: RateRule, now: number): Bucketed {
  const { refused } = one;
  const { cost, speed, room } = one.rate;
  Object.assign(one, ratedRule(rule), { refused });
  if (one.rate.cost !== cost || one.rate.speed !== speed || one.rate.room !== room) one.buckets.useRate(one.rate, now);
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
    takings.push({ of, rate, key, before, steps, waitMs: waitMs(rate, before, steps) });
  }
}

export function bucketedStatus(one: Bucketed, now: number): RateRuleStatus {
  return statusOf(one, { buckets: one.buckets.size(now), evicted: one.buckets.evicted() });
}

export function add({ rate, buckets }: Bucketed, key: string, steps: number, now: number): void {
  if (steps === 0) return;
  const taken = buckets.taken(key, now);
  const next = corrected(rate, taken, steps);
  if (next !== taken) buckets.set(key, now, next);
}
