import { type Config, defaultBurst, defaultRateName, type GroupRate } from "../config/schema.ts";
import type { RateMetric, RatePeriod, RateScope } from "./rate-names.ts";

/** A rule for the rate of requests or tokens. */
export interface RateRule {
  /** Named in refusals, headers and metrics. */
  readonly name: string;
  /** Each combination of these has a bucket; none: one bucket for all. Sorted. */
  readonly by: readonly RateScope[];
  readonly metric: RateMetric;
  /** Units in each `perMs`; both whole numbers, at most 1e9 and 1e12. */
  readonly max: number;
  readonly perMs: number;
  /** Units that a full bucket holds. */
  readonly burst: number;
  /** Names and globs of models that it applies to; null: all. The same for tiers and groups. */
  readonly models: readonly string[] | null;
  readonly tiers: readonly string[] | null;
  readonly groups: readonly string[] | null;
  /** Units that a request or each of its tokens takes, by name or glob of the model; 1 for others. */
  readonly weights: Readonly<Record<string, number>>;
  /** Whether responses say what is left of it. */
  readonly isShown: boolean;
  /** The group whose own rate it is; null: the config's. A rule of the config may have the name of a group's rate. */
  readonly ofGroup: string | null;
}

type RuleConfig = Config["limits"][number];

/** A group as far as its rates are concerned. */
export interface RatedGroup {
  readonly name: string;
  readonly rates: readonly GroupRate[];
}

/** In ms. */
const periods: Readonly<Record<RatePeriod, number>> = { second: 1000, minute: 60_000, hour: 3_600_000 };

/** All rules: those of [rate_limit], then [[limits]], then those of groups. */
export function createRateRules(
  config: Pick<Config, "rate_limit" | "limits">,
  groups: Iterable<RatedGroup> = [],
): readonly RateRule[] {
  const { requests_per_second: global, per_user: perUser, per_key: perKey } = config.rate_limit;
  const rules = [perSecondRule("global", [], global, false)];
  if (perUser !== undefined) rules.push(perSecondRule("per_user", ["user"], perUser, true));
  if (perKey !== undefined) rules.push(perSecondRule("per_key", ["key"], perKey, true));
  for (const rule of config.limits) rules.push(ruleOf(rule, null));
  for (const { name, rates } of groups) rules.push(...groupRules(name, rates));
  return rules;
}

function ruleOf(rule: RuleConfig, ofGroup: string | null): RateRule {
  const { by, metric, per, max, models, tiers, groups, weight } = rule;
  return {
    name: rule.name ?? defaultRateName(rule),
    by: [by].flat().filter(isScope).sort(),
    metric,
    max,
    perMs: periods[per],
    burst: rule.burst ?? defaultBurst(rule),
    models: models ?? null,
    tiers: tiers ?? null,
    groups: groups ?? null,
    weights: weight,
    isShown: true,
    ofGroup,
  };
}

function isScope(by: RateScope | "global"): by is RateScope {
  return by !== "global";
}

function groupRules(group: string, rates: readonly GroupRate[]): RateRule[] {
  const names = new Set<string>();
  return rates.map((rate) => {
    let name = `group_${group}_${rate.metric}_${rate.per}`;
    for (let nth = 2; names.has(name); nth++) name = `group_${group}_${rate.metric}_${rate.per}_${nth}`;
    names.add(name);
    return ruleOf({ ...rate, name, by: "group", groups: [group], tiers: undefined }, group);
  });
}

/** A rule of [rate_limit]: a rate with at most nine digits, and bursts of two seconds, at least of one request. */
function perSecondRule(name: string, by: readonly RateScope[], perSecond: number, isShown: boolean): RateRule {
  let scale = 1;
  while (!Number.isInteger(perSecond * scale) && perSecond * scale * 10 <= 1e9 && scale < 1e9) scale *= 10;
  return {
    name,
    by,
    metric: "requests" as const,
    isShown,
    max: Math.max(1, Math.round(perSecond * scale)),
    perMs: 1000 * scale,
    burst: Math.max(1, 2 * perSecond),
    models: null,
    tiers: null,
    groups: null,
    weights: {},
    ofGroup: null,
  };
}
