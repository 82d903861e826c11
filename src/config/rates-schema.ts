import { z } from "zod";
import { rateMetrics, ratePeriods, rateScopes } from "../limits/rate-names.ts";
import { modelGlob, plainName } from "./value-schemas.ts";

const amount = z.int().min(1).max(1_000_000_000);

const rateRule = z.strictObject({
  name: plainName.optional().describe("Named in refusals, headers and metrics. Default: made of by, metric and per."),
  by: z
    .union([z.enum(rateScopes), z.array(z.enum(rateScopes)).min(1).max(rateScopes.length)], {
      error: `expected one of ${rateScopes.join(", ")}, or a list of them`,
    })
    .describe("What has a bucket of its own: one scope, or a list of them for each combination."),
  metric: z.enum(rateMetrics).default("requests").describe("What is counted; tokens are input and output."),
  per: z.enum(ratePeriods).describe("The time in which `max` comes back."),
  max: amount.describe("Units in that time."),
  burst: amount.optional().describe("Units that may be used at once. Default: max; twice max if per second."),
  models: z.array(modelGlob).min(1).max(100).optional().describe("Only for these models; default: all."),
  tiers: z.array(plainName).min(1).max(100).optional().describe("Only for users of these tiers; default: all."),
  groups: z.array(plainName).min(1).max(1000).optional().describe("Only for requests of these groups; default: all."),
  weight: z
    .record(modelGlob, z.int().min(0).max(1000))
    .default({})
    .describe("Units that a request or each of its tokens takes, by model; default 1. 0: nothing."),
});

/** [[limits]]: rules for rates, beside [rate_limit]. */
export const rateRulesSection = z.array(rateRule).max(100);

/** A rule as config.toml has it. */
export type RateRuleConfig = Readonly<z.infer<typeof rateRule>>;

/** The name of a rule that gives none. */
export function defaultRateName({ by, metric, per }: Pick<RateRuleConfig, "by" | "metric" | "per">): string {
  return [...[by].flat().sort(), metric, per].join("_");
}

/** Units at once of a rule that says none. */
export function defaultBurst({ max, per }: Pick<RateRuleConfig, "max" | "per">): number {
  return per === "second" ? 2 * max : max;
}

/** The names of the rules that count a user or a key alone: nobody else can exhaust them. */
export function ownRateNames({ limits }: Pick<RatedConfig, "limits">): ReadonlySet<string> {
  const own = limits.filter(({ by }) => [by].flat().some((scope) => scope === "user" || scope === "key"));
  return new Set(["per_user", "per_key", ...own.map((rule) => rule.name ?? defaultRateName(rule))]);
}

/** Names that refusals have for other reasons. */
const reservedNames = /^(global|per_user|per_key|overload|other|concurrency(_[a-z]+)?)$/;

interface RatedConfig {
  readonly limits: readonly RateRuleConfig[];
  readonly quota: { readonly tiers: Readonly<Record<string, unknown>> };
}

/** Refuses rules that contradict others or that some requests could never pass. The issues' paths begin at `limits`. */
export function checkRates({ limits, quota }: RatedConfig, ctx: z.core.$RefinementCtx): void {
  const names = limits.map((rule) => rule.name ?? defaultRateName(rule));
  const tiers = Object.keys(quota.tiers);
  limits.forEach((rule, index) => {
    const refuse = (path: readonly (string | number)[], message: string): void => {
      ctx.addIssue({ code: "custom", path: ["limits", index, ...path], message });
    };
    const name = names[index] ?? "";
    const first = names.indexOf(name);
    if (first < index && rule.name === undefined) refuse([], `expected a name, since limits.${first} is ${name} too`);
    else if (first < index) refuse(["name"], `expected another name than limits.${first} has`);
    if (reservedNames.test(name)) refuse(["name"], `expected another name, since ${name} is one of the proxy's own`);

    const by = [rule.by].flat();
    if (new Set(by).size < by.length) refuse(["by"], "expected each of them once");
    else if (by.includes("global") && by.length > 1)
      refuse(["by"], "expected nothing beside global, which is one for all");
    for (const field of ["tiers", "groups", "models"] as const) {
      const listed: readonly string[] = rule[field] ?? [];
      const again = listed.findIndex((entry, at) => listed.indexOf(entry) < at);
      if (again !== -1) refuse([field, again], "expected each of them once");
    }
    rule.tiers?.forEach((tier, at) => {
      if (!tiers.includes(tier)) refuse(["tiers", at], `expected a tier of quota.tiers: ${tiers.join(", ")}`);
    });
    checkWeights(rule, refuse);
  });
}

/** Refuses weights of a rule that counts requests by which a request could never pass. */
export function checkWeights(
  rule: Pick<RateRuleConfig, "metric" | "per" | "max" | "burst" | "weight">,
  refuse: (path: readonly (string | number)[], message: string) => void,
): void {
  if (rule.metric !== "requests") return;
  const burst = rule.burst ?? defaultBurst(rule);
  for (const [model, weight] of Object.entries(rule.weight)) {
    if (weight > burst)
      refuse(["weight", model], `expected at most ${burst}, the burst: a request of that weight would never pass`);
  }
}
