import type { Config } from "../../config/schema.ts";
import { boundedMemo } from "../../lib/generation-map.ts";
import { createGlobMap } from "../../lib/glob-map.ts";
import { moreLiteralFirst } from "../../lib/globs.ts";
import { createWallClock } from "../../lib/wall-clock.ts";
import type { Price } from "./cost.ts";
import { rowsOfPrice, type PriceRow } from "./price-row.ts";

/** The prices of requests and tokens. */
export interface Pricing {
  /**
   * The price in force at an instant, the same object each time. If several match, one for this provider wins over one
   * for all, then a name over a glob, then the glob with more literal characters, then the first in the config. A price
   * that is not valid at that time is skipped. If none is left, the result has the id "" and amounts of 0: not free,
   * but unknown.
   *
   * @param model the provider's name for it
   * @param atMs ms since the epoch
   */
  priceAt(provider: string, model: string, atMs: number): Price;
  /** How many requests one request counts as: 1 to 1000. Of several globs the same one wins as for prices. */
  weightOf(model: string): number;
}

export interface PricingOptions {
  /** [models] */
  readonly models: Pick<Config["models"], "prices" | "weights">;
  /** quota.timezone, for dates without an offset. */
  readonly timezone: string;
  /** Currency of requests that cost nothing. */
  readonly currency: string;
}

/** Model names come from clients: the size of the cache per provider. */
const rememberedModels = 1000;

/** Creates the pricing. Throws RangeError for prices that the config's schema refuses. */
export function createPricing({ models, timezone, currency }: PricingOptions): Pricing {
  const local = createWallClock(timezone);
  const rows = models.prices
    .flatMap((price) => rowsOfPrice(price, local))
    .sort((a, b) => moreSpecificFirst(a.provider, b.provider) || moreLiteralFirst(a.glob, b.glob));
  const weights = createGlobMap(models.weights);
  const free = Object.freeze({ id: "", currency, cacheHit: 0, cacheMiss: 0, output: 0, reasoning: 0 });

  const rowsFor = (provider: string, model: string): readonly PriceRow[] =>
    rows.filter((row) => (row.provider ?? provider) === provider && row.matches(model));
  const rowsOf = boundedMemo(rememberedModels, (provider) =>
    boundedMemo(rememberedModels, (model) => rowsFor(provider, model)),
  );

  return {
    priceAt(provider, model, atMs) {
      for (const row of rowsOf(provider)(model)) {
        if (atMs >= row.from && atMs < row.until) return row.isPeak(atMs) ? row.peak : row.normal;
      }
      return free;
    },
    weightOf: boundedMemo(rememberedModels, (model) => weights(model) ?? 1),
  };
}

/** A row for a single provider comes before one for all. */
function moreSpecificFirst(a: string | undefined, b: string | undefined): number {
  return Number(a === undefined) - Number(b === undefined);
}
