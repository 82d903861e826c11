import { z } from "zod";
import { parseNano, scaleNano } from "../lib/money.ts";
import { createWallClock, instantOfToml } from "../lib/wall-clock.ts";
import {
  currencyCode,
  day,
  isNano,
  isTimezone,
  modelGlob,
  moment,
  nanoDecimal,
  plainName,
  timezone,
} from "./value-schemas.ts";

/** Units of a currency per million tokens: no price is higher, and four digits are left for a factor. */
const maxPrice = 1_000_000;

/** No quotes, backslashes or blanks: a glob is part of the text recorded with a charge. */
const plainGlob = modelGlob.regex(
  /^[^\s"'`\\\p{C}]+$/u,
  "a model name or glob without blanks and quotes, such as deepseek-*",
);

const weekdays = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"] as const;
const hourMinute = (description: string) =>
  z
    .string()
    .regex(/^(?:[01]\d|2[0-3]):[0-5]\d$|^24:00$/, "a time of the day such as 09:00")
    .describe(description);

const windowSchema = z
  .strictObject({
    days: z
      .array(z.enum(weekdays))
      .min(1)
      .default([...weekdays])
      .describe("Days of the week; default all of them."),
    from: hourMinute("Local time at which it begins."),
    to: hourMinute('Local time just before which it ends; "24:00" is the end of the day.'),
  })
  .refine((window) => window.from < window.to, {
    path: ["to"],
    message: "expected a time after `from`; write two windows for one over midnight",
  });

const peakSchema = z
  .strictObject({
    factor: nanoDecimal(1000).describe("Multiplies all prices within the windows."),
    timezone: timezone.describe("Time zone of the windows."),
    windows: z.array(windowSchema).min(1).max(100).describe("Times of day that are peak time."),
    except: z.array(day).max(10_000).default([]).describe("Local dates without peak time, such as public holidays."),
  })
  .superRefine(({ windows }, ctx) => {
    windows.forEach((window, index) => {
      if (windows.slice(0, index).some((other) => windowsOverlap(other, window))) {
        ctx.addIssue({ code: "custom", path: ["windows", index], message: "expected windows that don't overlap" });
      }
    });
  });

const price = (description: string) => nanoDecimal(maxPrice).describe(`${description}, per 1M tokens.`);

const priceSchema = z
  .strictObject({
    models: z
      .array(plainGlob)
      .min(1)
      .max(1000)
      .describe("Models it applies to, by their names at the provider; globs."),
    provider: plainName
      .optional()
      .describe("Name of the only provider it applies to; wins over prices for all providers."),
    currency: currencyCode.describe("Currency of the prices."),
    cache_hit: price("Prompt tokens that the provider had in its cache"),
    cache_miss: price("All other prompt tokens"),
    output: price("Output tokens"),
    reasoning: price("Output tokens of the model's reasoning; default as `output`").optional(),
    valid_from: moment.optional().describe("Start; default: no start. Without an offset in quota.timezone."),
    valid_until: moment.optional().describe("End, exclusive; default: no end."),
    peak: peakSchema.optional().describe("Peak hours with different prices."),
  })
  .superRefine((entry, ctx) => {
    if (entry.peak !== undefined && !isExactAtPeak(entry, entry.peak.factor)) {
      const message = `expected a factor that gives prices with at most 9 decimal places, and none over ${maxPrice}`;
      ctx.addIssue({ code: "custom", path: ["peak", "factor"], message });
    }
  });

/** [[models.prices]] */
export const pricesSchema = z.array(priceSchema).max(10_000).default([]).describe("Prices of tokens.");

/** [models] weights */
export const weightsSchema = z
  .record(plainGlob, z.int().min(1).max(1000))
  .default({})
  .describe("How many requests one request to a model counts as, by its name at the provider or by glob; default 1.");

type PriceConfig = z.infer<typeof priceSchema>;
type WindowConfig = z.infer<typeof windowSchema>;

/**
 * Refuses prices that end before they begin, and two for the same provider and glob at the same time: which of them
 * applies would be arbitrary. The issues' paths begin at `models`.
 *
 * @param zone quota.timezone, for dates without an offset
 */
export function checkPriceDates(prices: readonly PriceConfig[], zone: string, ctx: z.core.$RefinementCtx): void {
  // An unknown zone has been reported already.
  if (!isTimezone(zone)) return;
  const clock = createWallClock(zone);
  const known = new Map<string, { readonly from: number; readonly until: number; readonly index: number }[]>();
  prices.forEach((entry, index) => {
    const from = entry.valid_from === undefined ? -Infinity : instantOfToml(entry.valid_from, clock);
    const until = entry.valid_until === undefined ? Infinity : instantOfToml(entry.valid_until, clock);
    const refuse = (path: readonly PropertyKey[], message: string): void => {
      ctx.addIssue({ code: "custom", path: ["models", "prices", index, ...path], message, input: prices });
    };
    if (until <= from) refuse(["valid_until"], "expected a time after valid_from");
    for (const glob of new Set(entry.models)) {
      const key = `${entry.provider ?? ""} ${glob}`;
      const spans = known.get(key) ?? [];
      const clash = spans.find((other) => from < other.until && other.from < until);
      if (clash !== undefined) {
        refuse([], `expected other dates than models.prices.${clash.index} has, which also prices "${glob}"`);
      }
      known.set(key, [...spans, { from, until, index }]);
    }
  });
}

function windowsOverlap(a: WindowConfig, b: WindowConfig): boolean {
  return a.from < b.to && b.from < a.to && a.days.some((each) => b.days.includes(each));
}

function isExactAtPeak({ cache_hit, cache_miss, output, reasoning = output }: PriceConfig, factor: number): boolean {
  return [cache_hit, cache_miss, output, reasoning].every((each) => {
    // An invalid amount has been reported already.
    if (!isNano(each) || !isNano(factor)) return true;
    const scaled = scaleNano(parseNano(each), factor);
    return scaled !== undefined && scaled <= parseNano(maxPrice);
  });
}
