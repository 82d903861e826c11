import { boundedMemo } from "../lib/generation-map.ts";
import { createGlobMap, globMatcher } from "../lib/globs.ts";
import { type GcraRate, gcraRate } from "./gcra.ts";
import type { RateLimitRefusal, RateLimitRequest, RateLimitState, RateRuleStatus } from "./rate-limiter.ts";
import type { RateScope } from "./rate-names.ts";
import type { RateRule } from "./rate-rules.ts";

/** Names of models whose weight a rule remembers. */
const rememberedModels = 256;
const hourMs = 3_600_000;

/** A rule in force. */
export interface RatedRule {
  rule: RateRule;
  rate: GcraRate;
  tiers: ReadonlySet<string> | null;
  /** Units that one request, or one of its tokens, takes; 0: the rule doesn't apply. */
  weightOf: (model: string, upstreamModel: string) => number;
  /** Requests that this process has refused for it. */
  refused: number;
}

/** What one request takes from one rule. */
export interface Taking<Of extends RatedRule = RatedRule> {
  readonly of: Of;
  readonly rate: GcraRate;
  readonly key: string;
  /** In steps: what was taken before, and what this request takes. */
  readonly before: number;
  readonly steps: number;
  readonly waitMs: number;
  /** When it was looked at, in ms of the clock of the buckets. */
  readonly at: number;
}

/** The rules that may apply to a request; those by provider apart, since they decide who gets it. */
interface RuleSet<Of extends RatedRule> {
  readonly plain: Of[];
  readonly byProvider: Of[];
}

/** All rules, so that a request looks only at those of its own group. */
export interface RuleSets<Of extends RatedRule> {
  readonly forAll: RuleSet<Of>;
  readonly forGroup: ReadonlyMap<string, RuleSet<Of>>;
}

export function ruleSets<Of extends RatedRule>(rules: readonly Of[]): RuleSets<Of> {
  const forAll: RuleSet<Of> = { plain: [], byProvider: [] };
  const forGroup = new Map<string, RuleSet<Of>>();
  for (const one of rules) {
    const { by, groups } = one.rule;
    for (const set of groups === null ? [forAll] : [...new Set(groups)].map((group) => setOf(forGroup, group)))
      (by.includes("provider") ? set.byProvider : set.plain).push(one);
  }
  return { forAll, forGroup };
}

function setOf<Of extends RatedRule>(sets: Map<string, RuleSet<Of>>, group: string): RuleSet<Of> {
  let set = sets.get(group);
  if (set === undefined) sets.set(group, (set = { plain: [], byProvider: [] }));
  return set;
}

/** What makes a rule the same one after a change of its figures. */
export function identity({ name, by, metric, ofGroup }: RateRule): string {
  return [name, metric, by.join("+"), ofGroup ?? ""].join("\n");
}

export function ratedRule(rule: RateRule): RatedRule {
  const { max, perMs, burst, tiers, models, weights } = rule;
  return {
    rule,
    rate: gcraRate(max, perMs, burst),
    refused: 0,
    tiers: tiers === null ? null : new Set(tiers),
    weightOf: weightsOf(models, weights),
  };
}

/** A model has two names: the client's, and the one after aliases, whose weight goes first. Either is enough to match. */
function weightsOf(models: RateRule["models"], weights: RateRule["weights"]): RatedRule["weightOf"] {
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

/** Units of a request that has or may have so many tokens; 0 if the rule doesn't apply to its model. */
export function unitsOf(
  { rule: { metric }, weightOf }: RatedRule,
  { model, upstreamModel }: RateLimitRequest,
  tokens: number,
  outputTokens: number,
): number {
  const counted = metric === "requests" ? 1 : metric === "tokens" ? tokens : outputTokens;
  return counted * weightOf(model, upstreamModel);
}

/** The steps of so many units: fewer for users who are trusted more. */
export function stepsOf({ rule, rate }: RatedRule, { factor }: RateLimitRequest, units: number): number {
  const steps = units * rate.cost;
  const isPersonal = factor !== 1 && (rule.by.includes("user") || rule.by.includes("key"));
  return isPersonal ? Math.ceil(steps / factor) : steps;
}

export function stepsOfTake(of: RatedRule, request: RateLimitRequest, units: number): number {
  const { rule, rate } = of;
  const steps = stepsOf(of, request, units);
  // A bound that the client didn't ask for refuses nobody for ever: such a request takes all that there is.
  if (request.isOwnBound && rule.metric !== "requests") return Math.min(steps, rate.room);
  // Little trust slows users down, but makes nothing impossible for them.
  return request.factor < 1 ? Math.min(steps, Math.max(units * rate.cost, rate.room)) : steps;
}

/** The key of the bucket; null if the request has none, such as no group. */
export function keyOf(by: readonly RateScope[], request: RateLimitRequest, provider: string): string | null {
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
export function stateOf(
  { of, rate }: Pick<Taking, "of" | "rate">,
  taken: number,
  request: RateLimitRequest,
): RateLimitState {
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

export function statusOf(
  { rule, rate, refused }: RatedRule,
  counts: Pick<RateRuleStatus, "buckets" | "evicted">,
): RateRuleStatus {
  return {
    name: rule.name,
    by: rule.by,
    metric: rule.metric,
    ...shownRate(rule),
    burst: Math.floor(rate.room / rate.cost),
    models: rule.models,
    tiers: rule.tiers,
    groups: rule.groups,
    ...counts,
    refused,
  };
}

/** The rule that refuses for the longest; null if none refuses. */
export function worstOf<Of extends RatedRule>(takings: readonly Taking<Of>[]): Taking<Of> | null {
  let worst: Taking<Of> | null = null;
  for (const taking of takings) if (taking.waitMs > 0 && (worst === null || isWorse(taking, worst))) worst = taking;
  return worst;
}

export function isWorse(a: Taking, b: Taking): boolean {
  return isTooLarge(a) === isTooLarge(b) ? a.waitMs > b.waitMs : isTooLarge(a);
}

function isTooLarge({ rate, steps }: Taking): boolean {
  return steps > rate.room;
}

/** Counts it with the rule that refuses. */
export function refusalOf(worst: Taking, takings: readonly Taking[], request: RateLimitRequest): RateLimitRefusal {
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
