import type { Config } from "../config/schema.ts";
import type { Metric } from "../quota/ledger.ts";
import { createPricing, type Pricing } from "../quota/pricing/pricing.ts";

/** How requests are priced, and guessed at where nobody has counted yet. */
export interface PricingPolicy {
  readonly pricing: Pricing;
  /** A prompt is held as one token for so many bytes. */
  readonly reserveBytesPerToken: number;
  /** A prompt is charged as one token for so many bytes where the provider reported nothing. */
  readonly estimateBytesPerToken: number;
  /** Output held for a request that names no max_tokens. */
  readonly maxOutputTokens: number;
  /** Limits at which an answer is cut in mid-stream. */
  readonly cutMidstream: ReadonlySet<Metric>;
}

/**
 * Models that users with a limit of cost are refused for want of a price, where a tier has such a limit: most likely a
 * price was forgotten. As PROVIDER/MODEL. Of a glob somebody may want to price only a part: it is named only where the
 * config has no prices at all.
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

/** The pricingPolicy of a config. Throws RangeError for prices that the config's schema refuses. */
export function createPricingPolicy({ models, quota }: Pick<Config, "models" | "quota">): PricingPolicy {
  return {
    pricing: createPricing({ models, timezone: quota.timezone, currency: quota.currency }),
    reserveBytesPerToken: quota.reserve_bytes_per_token,
    estimateBytesPerToken: quota.estimate_bytes_per_token,
    maxOutputTokens: quota.max_output_tokens,
    cutMidstream: new Set(quota.cut_midstream),
  };
}
