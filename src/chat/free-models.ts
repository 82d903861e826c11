import type { Config } from "../config/schema.ts";
import type { Pricing } from "../quota/prices/pricing.ts";

/**
 * Models that are free while somebody's cost is limited: most likely a price was forgotten, and then that limit never
 * holds. As PROVIDER/MODEL; a glob of the config stands for itself, and counts as priced only where a price takes all
 * of it in.
 *
 * @param atMs ms since the epoch
 */
export function freeModels(
  { providers, quota }: Pick<Config, "providers" | "quota">,
  pricing: Pricing,
  atMs: number,
): readonly string[] {
  const limitsCost = Object.values(quota.tiers).some(({ limits }) => limits.some(({ metric }) => metric === "cost"));
  if (!limitsCost) return [];
  return providers
    .filter(({ enabled, kind }) => enabled && kind !== "simulator")
    .flatMap(({ name, models, model_map: own }) =>
      models
        .map((model) => own[model] ?? model)
        .filter((model) => pricing.priceAt(name, model, atMs).id === "")
        .map((model) => `${name}/${model}`),
    );
}
