import { parseConfig } from "../../src/config/load.ts";
import { createPricing, type Pricing } from "../../src/quota/pricing/pricing.ts";

/** The pricing of a config with these lines. */
export function pricingOf(toml: string): Pricing {
  const { models, quota } = parseConfig(toml, "config.toml");
  return createPricing({ models, timezone: quota.timezone, currency: quota.currency });
}

/** A [[models.prices]] of `output` units per 1M tokens and nothing for prompts; further lines may follow. */
export function price(models: string, output: string, lines = ""): string {
  const globs = models.split(" ").map((glob) => `"${glob}"`);
  return `
[[models.prices]]
models = [${globs.join(", ")}]
currency = "CNY"
cache_hit = 0
cache_miss = 0
output = ${output}
${lines}
`;
}

/** ms since the epoch of an ISO 8601 time with its offset. */
export const at = (iso: string): number => Date.parse(iso);
