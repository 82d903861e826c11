import type { Config } from "../../config/schema.ts";
import type { Price } from "./cost.ts";
import { globMatcher } from "../../lib/globs.ts";
import { formatNano, parseNano, scaleNano } from "../../lib/money.ts";
import { createWallClock, instantOfToml, type WallClock } from "../../lib/wall-clock.ts";

type PriceConfig = Config["models"]["prices"][number];

/** A configured price for one of its globs. */
export interface PriceRow {
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
