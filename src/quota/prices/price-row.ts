import type { Config } from "../../config/schema.ts";
import { globMatcher } from "../../lib/globs.ts";
import { formatNano, parseNano } from "../../lib/money.ts";
import { scaleNano } from "../../lib/scale-nano.ts";
import { instantOfToml } from "../../lib/toml-instant.ts";
import type { WallClock } from "../../lib/wall-clock.ts";
import type { Price } from "./cost.ts";
import { createPeakTest } from "./peak.ts";

type PriceConfig = Config["models"]["prices"][number];

/** A configured price for one of its globs. */
export interface PriceRow {
  readonly glob: string;
  /** The only provider that it is for. */
  readonly provider: string | undefined;
  readonly matches: (model: string) => boolean;
  /** In force from then, in ms since the epoch. */
  readonly from: number;
  /** In force until just before then. */
  readonly until: number;
  readonly normal: Price;
  readonly peak: Price;
  readonly isPeak: (atMs: number) => boolean;
}

/**
 * The rows of an entry of [[models.prices]], one for each of its globs.
 *
 * @param local the clock that dates without an offset go by
 * @throws RangeError for prices that the config's schema refuses
 */
export function rowsOfPrice(config: PriceConfig, local: WallClock): PriceRow[] {
  const from = config.valid_from === undefined ? -Infinity : instantOfToml(config.valid_from, local);
  const until = config.valid_until === undefined ? Infinity : instantOfToml(config.valid_until, local);
  const isPeak = config.peak === undefined ? () => false : createPeakTest(config.peak);
  const since = from === -Infinity ? "always" : new Date(from).toISOString().replace(".000Z", "Z");
  return config.models.map((glob) => {
    const name = `${config.provider === undefined ? "" : `${config.provider}/`}${glob}@${since}`;
    return {
      glob,
      provider: config.provider,
      matches: globMatcher(glob),
      from,
      until,
      normal: priceOf(config, name, 1),
      peak: priceOf(config, `${name} peak`, config.peak?.factor ?? 1),
      isPeak,
    };
  });
}

function priceOf(config: PriceConfig, name: string, factor: number): Price {
  const nano = (amount: number): number => {
    const scaled = scaleNano(parseNano(amount), factor);
    if (scaled === undefined) throw new RangeError(`${amount} times ${factor} is not a whole number of nano-units`);
    return scaled;
  };
  const cacheHit = nano(config.cache_hit);
  const cacheMiss = nano(config.cache_miss);
  const output = nano(config.output);
  const reasoning = nano(config.reasoning ?? config.output);
  const id = `${name} ${[cacheHit, cacheMiss, output, reasoning].map(formatNano).join("/")}`;
  return Object.freeze({ id, currency: config.currency, cacheHit, cacheMiss, output, reasoning });
}
