import type { Config } from "../../config/schema.ts";
import { boundedMemo } from "../../lib/generation-map.ts";
import { createGlobMap } from "../../lib/glob-map.ts";
import { moreLiteralFirst } from "../../lib/globs.ts";
import { createWallClock } from "../../lib/wall-clock.ts";
import type { Price } from "./cost.ts";
import { rowsOfPrice, type PriceRow } from "./price-row.ts";

/** What requests and tokens cost. */
export interface Pricing {
  /**
   * The price in force at an instant, the same object each time. Of several that match, one for this provider wins over
   * one for all, then a name over a glob, then the glob with more literal characters, then the one that comes first in
   * the config. A price that is not in force yet, or no more, leaves the place to the next. Where none is left,
   * it is one whose id is "" and whose amounts are 0: not free, but unknown.
   *
   * @param model as the provider calls it
   * @param atMs ms since the epoch
   */
  priceAt(provider: string, model: string, atMs: number): Price;
  /** How many requests one request counts for: 1 to 1000. Of several globs the same one wins as for prices. */
  weightOf(model: string): number;
}

export interface PricingOptions {
  /** [models] */
  readonly models: Pick<Config["models"], "prices" | "weights">;
  /** quota.timezone, in which dates without an offset are meant. */
  readonly timezone: string;
  /** Currency of requests that cost nothing. */
  readonly currency: string;
}

/** Names of models come from clients: so many are remembered for each provider. */
const rememberedModels = 1000;

/** Makes the pricing. Throws RangeError for prices that the config's schema refuses. */
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

/** One for a single provider comes before one for all. */
function moreSpecificFirst(a: string | undefined, b: string | undefined): number {
  return Number(a === undefined) - Number(b === undefined);
}
