import { boundedMemo } from "../../lib/generation-map.ts";
import { createGlobMap, globMatcher } from "../../lib/globs.ts";
import type { RateLimitRequest, RateLimitState, RateRuleStatus } from "../rate-limiter.ts";
import type { RateRule, RateScope } from "../rate-rules.ts";
import { createBucketTable, type BucketTable } from "./bucket-table.ts";
import { corrected, type GcraRate, gcraRate, waitMs } from "./gcra.ts";

/** Names of models whose weight a rule remembers. */
const rememberedModels = 256;
const hourMs = 3_600_000;

/** A rule with its buckets. A ticket keeps it, so that it is corrected by the rule that it was taken from. */
export interface Bucketed {
  rule: RateRule;
  rate: GcraRate;
  tiers: ReadonlySet<string> | null;
  /** Units that one request, or one of its tokens, takes; 0: the rule doesn't apply. */
  weightOf: (model: string, upstreamModel: string) => number;
  refused: number;
  readonly buckets: BucketTable;
}

/** What one request takes from one rule. */
export interface Taking {
  readonly of: Bucketed;
  readonly rate: GcraRate;
  readonly key: string;
  /** In steps: what was taken before, and what this request takes. */
  readonly before: number;
  readonly steps: number;
  readonly waitMs: number;
}

/** @param maxBuckets an even number */
export function newBucketed(rule: RateRule, maxBuckets: number, now: number): Bucketed {
  const rate = rateOf(rule);
  return { ...termsOf(rule), rule, rate, refused: 0, buckets: createBucketTable(maxBuckets, rate, now) };
}

function rateOf({ max, perMs, burst }: RateRule): GcraRate {
  return gcraRate(max, perMs, burst);
}

export function changed(one: Bucketed, rule: RateRule, now: number): Bucketed {
  const rate = rateOf(rule);
  const { cost, speed, room } = one.rate;
  if (rate.cost !== cost || rate.speed !== speed || rate.room !== room) one.buckets.useRate(rate, now);
  return Object.assign(one, { ...termsOf(rule), rule, rate });
}

/** What a rule asks of a request. */
function termsOf({ tiers, models, weights }: RateRule): Pick<Bucketed, "tiers" | "weightOf"> {
  return { tiers: tiers === null ? null : new Set(tiers), weightOf: weightsOf(models, weights) };
}

/** A model has two names: the client's, and the one after aliases, whose weight goes first. Either is enough to match. */
function weightsOf(models: RateRule["models"], weights: RateRule["weights"]): Bucketed["weightOf"] {
  if (models === null && Object.keys(weights).length === 0) return () => 1;
  const matchers = models?.map(globMatcher) ?? null;
  const weightOf = createGlobMap(weights);
  const find = (upstreamModel: string, model: string): number => {
    if (matchers?.some((matches) => matches(upstreamModel) || matches(model)) === false) return 0;
    return weightOf(upstreamModel) ?? weightOf(model) ?? 1;
  };
  const known = boundedMemo(rememberedModels, (name) => find(name, name));
  return (model, upstreamModel) => (model === upstreamModel ? known(model) : find(upstreamModel, model));
}

/** Adds what a request would take of each rule that applies to it. */
export function look(
  rules: readonly Bucketed[],
  request: RateLimitRequest,
  provider: string,
  now: number,
  takings: Taking[],
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

/** Units of a request that has or may have so many tokens; 0 if the rule doesn't apply to its model. */
export function unitsOf(
  { rule: { metric }, weightOf }: Bucketed,
  { model, upstreamModel }: RateLimitRequest,
  tokens: number,
  outputTokens: number,
): number {
  const counted = metric === "requests" ? 1 : metric === "tokens" ? tokens : outputTokens;
  return counted * weightOf(model, upstreamModel);
}

/** The steps of so many units: fewer for users who are trusted more. */
export function stepsOf({ rule, rate }: Bucketed, { factor }: RateLimitRequest, units: number): number {
  const steps = units * rate.cost;
  const isPersonal = factor !== 1 && (rule.by.includes("user") || rule.by.includes("key"));
  return isPersonal ? Math.ceil(steps / factor) : steps;
}

function stepsOfTake(of: Bucketed, request: RateLimitRequest, units: number): number {
  const { rule, rate } = of;
  const steps = stepsOf(of, request, units);
  // A bound that the client didn't ask for refuses nobody for ever: such a request takes all that there is.
  if (request.isOwnBound && rule.metric !== "requests") return Math.min(steps, rate.room);
  // Little trust slows users down, but makes nothing impossible for them.
  return request.factor < 1 ? Math.min(steps, Math.max(units * rate.cost, rate.room)) : steps;
}

/** The key of the bucket; null if the request has none, such as no group. */
function keyOf(by: readonly RateScope[], request: RateLimitRequest, provider: string): string | null {
  let key: string | null = null;
  for (const scope of by) {
    const part = partOf(scope, request, provider);
    if (part === null) return null;
    // At most one of them, the model, contains line breaks, so different parts never become one key.
    key = key === null ? part : `${key}\n${part}`;
  }
  return key ?? "";
}

function partOf(scope: RateScope, request: RateLimitRequest, provider: string): string | null {
  switch (scope) {
    case "user":
      return request.user;
    case "key":
      return request.apiKey;
    case "group":
      return request.group;
    case "tier":
      return request.tier;
    case "address":
      return request.ip;
    case "model":
      return request.upstreamModel;
    case "provider":
      return provider;
  }
}

/** What a rule shows of a bucket. A user who may go slower or faster sees that user's own figures. */
export function stateOf({ of, rate }: Taking, taken: number, request: RateLimitRequest): RateLimitState {
  const { rule } = of;
  const unit = stepsOf(of, request, 1);
  const { max, windowSeconds } = shownRate(rule);
  return {
    rule: rule.name,
    metric: rule.metric,
    max: Math.max(1, Math.floor((max * rate.cost) / unit)),
    windowSeconds,
    remaining: Math.max(0, Math.floor((rate.room - taken) / unit)),
    resetMs: Math.ceil(taken / rate.speed),
  };
}

/** As a whole number in a window of whole seconds: 0.5 a second are 30 a minute. */
function shownRate({ max, perMs }: RateRule): { readonly max: number; readonly windowSeconds: number } {
  for (const windowSeconds of perMs % 1000 === 0 && perMs <= 3_600_000 ? [perMs / 1000] : [1, 60, 3600]) {
    const units = (max * windowSeconds * 1000) / perMs;
    if (Number.isInteger(units)) return { max: units, windowSeconds };
  }
  return { max: Math.max(1, Math.floor((max * hourMs) / perMs)), windowSeconds: 3600 };
}

export function statusOf({ rule, rate, buckets, refused }: Bucketed, now: number): RateRuleStatus {
  return {
    ...{ name: rule.name, by: rule.by, metric: rule.metric, ...shownRate(rule) },
    burst: Math.floor(rate.room / rate.cost),
    ...{ models: rule.models, tiers: rule.tiers, groups: rule.groups },
    ...{ buckets: buckets.size(now), evicted: buckets.evicted(), refused },
  };
}

export function add({ rate, buckets }: Bucketed, key: string, steps: number, now: number): void {
  if (steps === 0) return;
  const taken = buckets.taken(key, now);
  const next = corrected(rate, taken, steps);
  if (next !== taken) buckets.set(key, now, next);
}
