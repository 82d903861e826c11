import type { Config } from "../config/schema.ts";
import type { QuotaLimit } from "./ledger.ts";
import { metrics } from "./metrics.ts";

type QuotaConfig = Config["quota"];
type TierConfig = QuotaConfig["tiers"][string];
type LimitConfig = TierConfig["limits"][number];

/** What the users of each tier may use, computed once. */
export interface Tiers {
  /** The limits of a tier, the same array each time; undefined for a tier that the config doesn't have. */
  limitsOf(tier: string): readonly QuotaLimit[] | undefined;
  /** The names of all tiers, in the order of the config. */
  readonly names: readonly string[];
}

/** Throws RangeError for a cost limit with more than 9 decimal places, which the config's schema refuses. */
export function createTiers(quota: Pick<QuotaConfig, "tiers" | "currency">): Tiers {
  const limits = new Map(Object.entries(quota.tiers).map(([name, tier]) => [name, limitsIn(tier, quota.currency)]));
  return { limitsOf: (tier) => limits.get(tier), names: [...limits.keys()] };
}

function limitsIn(tier: TierConfig, defaultCurrency: string): readonly QuotaLimit[] {
  const monthly: QuotaLimit[] =
    tier.requests === undefined ? [] : [{ metric: "requests", per: "month", max: tier.requests }];
  return [...monthly, ...tier.limits.map((limit) => toLimit(limit, defaultCurrency))];
}

/** A limit in the ledger's format: cost in nano-units, and always with its currency. Throws as above. */
export function toLimit({ metric, per, max, currency }: LimitConfig, defaultCurrency: string): QuotaLimit {
  const { parse, hasCurrency } = metrics[metric];
  return { metric, per, max: parse(max), ...(hasCurrency ? { currency: currency ?? defaultCurrency } : {}) };
}
