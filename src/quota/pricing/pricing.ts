import type { Config } from "../../config/schema.ts";
import type { TokenUsage } from "../ledger.ts";
import { boundedMemo } from "../../lib/generation-map.ts";
import { createGlobMap, globMatcher, moreLiteralFirst } from "../../lib/globs.ts";
import { formatNano, parseNano, scaleNano } from "../../lib/money.ts";
import { createWallClock, instantOfToml, type WallClock } from "../../lib/wall-clock.ts";

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

/** A price of the config, and when it is in force: ms since the epoch, `until` exclusive. */
export interface NamedPrice {
  readonly price: Price;
  readonly from: number;
  readonly until: number;
}

/** All prices of a config by their ids, those of peak hours included. Throws as createPricing. */
export function pricesById({ models, timezone }: Omit<PricingOptions, "currency">): ReadonlyMap<string, NamedPrice> {
  const local = createWallClock(timezone);
  const rows = models.prices.flatMap((price) => rowsOfPrice(price, local));
  return new Map(
    rows.flatMap(({ from, until, normal, peak }) =>
      [normal, peak].map((price) => [price.id, { price, from, until }] as const),
    ),
  );
}

/** A row for a single provider comes before one for all. */
function moreSpecificFirst(a: string | undefined, b: string | undefined): number {
  return Number(a === undefined) - Number(b === undefined);
}

type PriceConfig = Config["models"]["prices"][number];

/** A configured price for one of its globs. */
interface PriceRow {
  readonly glob: string;
  /** The only provider it applies to. */
  readonly provider: string | undefined;
  readonly matches: (model: string) => boolean;
  /** Valid from then, in ms since the epoch. */
  readonly from: number;
  /** Valid until just before then. */
  readonly until: number;
  readonly normal: Price;
  readonly peak: Price;
  readonly isPeak: (atMs: number) => boolean;
}

/**
 * The rows of an entry of [[models.prices]], one for each of its globs.
 *
 * @param local the wall clock for dates without an offset
 * @throws RangeError for prices that the config's schema refuses
 */
function rowsOfPrice(config: PriceConfig, local: WallClock): PriceRow[] {
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

type PeakConfig = NonNullable<Config["models"]["prices"][number]["peak"]>;

const minuteMs = 60_000;
const dayMs = 86_400_000;

/** In the order of Date.getUTCDay(). */
const weekdays = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] as const;

/**
 * Creates a test of whether an instant, in ms since the epoch, is in peak time. The wall clock decides, as intended by
 * the author of the windows: an hour repeated by a clock change counts both times, a skipped one never occurs. Windows
 * and clock changes are on whole minutes, so one result is valid for a whole minute, and the boundaries are exact to
 * the millisecond.
 */
function createPeakTest({ timezone, windows, except }: PeakConfig): (atMs: number) => boolean {
  const clock = createWallClock(timezone);
  const holidays = new Set(except.map((date) => date.getTime()));
  const spansOfDay = weekdays.map((weekday) =>
    windows
      .filter(({ days }) => days.includes(weekday))
      .map(({ from, to }) => ({ from: msOfDay(from), to: msOfDay(to) })),
  );

  function judge(reading: number): boolean {
    const time = reading % dayMs;
    const date = reading - time;
    if (holidays.has(date)) return false;
    const spans = spansOfDay[new Date(date).getUTCDay()] ?? [];
    return spans.some(({ from, to }) => time >= from && time < to);
  }

  let minute = NaN;
  let isPeak = false;
  return (atMs) => {
    const minuteOfAt = Math.floor(atMs / minuteMs);
    if (minuteOfAt !== minute) {
      isPeak = judge(clock.readAt(minuteOfAt * minuteMs));
      minute = minuteOfAt;
    }
    return isPeak;
  };
}

/** "09:30" as ms since midnight. */
function msOfDay(time: string): number {
  return (Number(time.slice(0, 2)) * 60 + Number(time.slice(3))) * minuteMs;
}

/**
 * The price of tokens: nano-units of `currency` per million tokens, each a safe integer >= 0. Frozen; never changes.
 */
export interface Price {
  /**
   * Identifies and describes the price, for the record of a charge: glob, start, "peak" if it applies, and the prices
   * in units for cache hit, cache miss, output and reasoning, such as "deepseek-flash@2026-09-09T16:00:00Z peak
   * 0.04/2/8/8". Contains no quotes, backslashes or line breaks. "" if no price is known.
   */
  readonly id: string;
  readonly currency: string;
  readonly cacheHit: number;
  readonly cacheMiss: number;
  readonly output: number;
  readonly reasoning: number;
}

const perMillion = 1_000_000;

/**
 * The cost of a response, in nano-units of the price's currency. Exact, and rounded once, half up, after the sum: n
 * charges for parts of a response differ by at most n / 2 nano-units from one charge for the whole. Never throws; an
 * amount that is no safe integer becomes Number.MAX_SAFE_INTEGER.
 *
 * @param usage safe integers >= 0. A part counts at most as much as its whole: cached in input, reasoning in output
 */
export function costOf(price: Price, usage: TokenUsage): number {
  const hits = Math.min(usage.cached, usage.input);
  const misses = usage.input - hits;
  const thought = Math.min(usage.reasoning, usage.output);
  const said = usage.output - thought;
  const rounded =
    hits * price.cacheHit + misses * price.cacheMiss + said * price.output + thought * price.reasoning + perMillion / 2;
  // No term is negative: if the sum is a safe integer, so are all terms, and the result is exact.
  if (Number.isSafeInteger(rounded)) return (rounded - (rounded % perMillion)) / perMillion;
  const exact =
    BigInt(hits) * BigInt(price.cacheHit) +
    BigInt(misses) * BigInt(price.cacheMiss) +
    BigInt(said) * BigInt(price.output) +
    BigInt(thought) * BigInt(price.reasoning);
  return Math.min(Number((exact + 500_000n) / 1_000_000n), Number.MAX_SAFE_INTEGER);
}

/**
 * The maximum cost of so many tokens, whatever part of the prompt comes from the cache and whatever part of the output
 * is reasoning. For reserving it before the request is sent.
 */
export function highestCostOf(price: Price, input: number, output: number): number {
  const cached = price.cacheHit > price.cacheMiss ? input : 0;
  const reasoning = price.reasoning > price.output ? output : 0;
  return costOf(price, { input, cached, output, reasoning });
}
