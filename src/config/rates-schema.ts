import { z } from "zod";
import { modelGlob, plainName } from "./value-schemas.ts";

/** What a rule may count by. */
export const rateScopes = ["global", "user", "key", "group", "tier", "address", "model", "provider"] as const;
export type RateScope = (typeof rateScopes)[number];
const rateMetrics = ["requests", "tokens", "output_tokens"] as const;
const ratePeriods = ["second", "minute", "hour"] as const;

const amount = z.int().min(1).max(1_000_000_000);

const rateRule = z.strictObject({
  name: plainName.optional().describe("Named in refusals, headers and metrics. Default: made of by, metric and per."),
  by: z
    .union([z.enum(rateScopes), z.array(z.enum(rateScopes)).min(1).max(rateScopes.length)])
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

/** Refuses rules that contradict others or that nothing could ever pass. The issues' paths begin at `limits`. */
export function checkRates(
  { limits }: { readonly limits: readonly RateRuleConfig[] },
  ctx: z.core.$RefinementCtx,
): void {
  limits.forEach(({ name }, index) => {
    const first = limits.findIndex((rule) => rule.name !== undefined && rule.name === name);
    if (first < 0 || first === index) return;
    const message = `expected another name than limits.${first} has`;
    ctx.addIssue({ code: "custom", path: ["limits", index, "name"], message });
  });
}
