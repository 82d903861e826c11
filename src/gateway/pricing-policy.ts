import type { Config } from "../config/schema.ts";
import type { Metric } from "../quota/metrics.ts";
import { createPricing, type Pricing } from "../quota/pricing/pricing.ts";

/** How requests are priced, and how tokens are estimated before a provider has counted them. */
export interface PricingPolicy {
  readonly pricing: Pricing;
  /** Bytes of a prompt for each token that is reserved. */
  readonly reserveBytesPerToken: number;
  /** Bytes of a prompt for each token that is charged when the provider reports no usage. */
  readonly estimateBytesPerToken: number;
  /** Output tokens reserved for a request without max_tokens. */
  readonly maxOutputTokens: number;
  /** Metrics whose limits cut a response in mid-stream. */
  readonly cutMidstream: ReadonlySet<Metric>;
}

/**
 * Models without a price, as PROVIDER/MODEL, if any tier has a cost limit: users with such a limit can't use them, so a
 * price was most likely forgotten. A glob may be priced in part on purpose: it is listed only if the config has no
 * prices at all.
 *
 * @param atMs ms since the epoch
 */
export function unpricedModels(
  { providers, quota, models: { prices } }: Pick<Config, "providers" | "quota" | "models">,
  pricing: Pricing,
  atMs: number,
): readonly string[] {
  const limitsCost = Object.values(quota.tiers).some(({ limits }) => limits.some(({ metric }) => metric === "cost"));
  if (!limitsCost) return [];
  return providers
    .filter(({ enabled }) => enabled)
    .flatMap(({ name, models, model_map: own }) =>
      [...models, ...Object.values(own)]
        .filter((model) => prices.length === 0 || !model.includes("*"))
        .map((model) => own[model] ?? model)
        .filter((model, index, all) => all.indexOf(model) === index && pricing.priceAt(name, model, atMs).id === "")
        .map((model) => `${name}/${model}`),
    );
}

/** The pricing policy of a config. Throws RangeError for prices that the config's schema rejects. */
export function createPricingPolicy({ models, quota }: Pick<Config, "models" | "quota">): PricingPolicy {
  return {
    pricing: createPricing({ models, timezone: quota.timezone, currency: quota.currency }),
    reserveBytesPerToken: quota.reserve_bytes_per_token,
    estimateBytesPerToken: quota.estimate_bytes_per_token,
    maxOutputTokens: quota.max_output_tokens,
    cutMidstream: new Set(quota.cut_midstream),
  };
}
