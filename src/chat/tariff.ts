import type { Config } from "../config/schema.ts";
import type { Metric } from "../quota/ledger.ts";
import { createPricing, type Pricing } from "../quota/prices/pricing.ts";

/** How requests are priced, and guessed at where nobody has counted yet. */
export interface Tariff {
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

/** The tariff of a config. Throws RangeError for prices that the config's schema refuses. */
export function createTariff({ models, quota }: Pick<Config, "models" | "quota">): Tariff {
  return {
    pricing: createPricing({ models, timezone: quota.timezone, currency: quota.currency }),
    reserveBytesPerToken: quota.reserve_bytes_per_token,
    estimateBytesPerToken: quota.estimate_bytes_per_token,
    maxOutputTokens: quota.max_output_tokens,
    cutMidstream: new Set(quota.cut_midstream),
  };
}
