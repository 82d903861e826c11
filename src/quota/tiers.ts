import type { Config } from "../config/schema.ts";
import { parseNano } from "../lib/money.ts";
import type { Limit } from "./ledger.ts";

type QuotaConfig = Config["quota"];
type TierConfig = QuotaConfig["tiers"][string];

/** What the users of each tier may use, worked out once. */
export interface Tiers {
  /** The limits of a tier, the same array each time; undefined for a tier that the config doesn't have. */
  limitsOf(tier: string): readonly Limit[] | undefined;
  /** The names of all tiers, in the order of the config. */
  readonly names: readonly string[];
}

/** Throws RangeError for a cost limit with more than 9 decimal places. */
export function createTiers(quota: Pick<QuotaConfig, "tiers" | "currency">): Tiers {
  const limits = new Map(Object.entries(quota.tiers).map(([name, tier]) => [name, limitsIn(tier, quota.currency)]));
  return { limitsOf: (tier) => limits.get(tier), names: [...limits.keys()] };
}

function limitsIn(tier: TierConfig, defaultCurrency: string): readonly Limit[] {
  const monthly: Limit[] =
    tier.requests === undefined ? [] : [{ metric: "requests", per: "month", max: tier.requests }];
  const listed = tier.limits.map(({ metric, per, max, currency }): Limit => {
    if (metric !== "cost") return { metric, per, max };
    return { metric, per, max: parseNano(max), currency: currency ?? defaultCurrency };
  });
  return [...monthly, ...listed];
}
