import { TomlDate } from "smol-toml";
import { z } from "zod";
import { maxNameLength, maxStars, starsOf } from "../lib/globs.ts";
import { isTomlTime } from "../lib/wall-clock.ts";
import { isNetwork } from "../lib/ip-list.ts";
import { parseNano } from "../lib/money.ts";

const currencies: ReadonlySet<string> = new Set(Intl.supportedValuesOf("currency"));

/** Names of providers and tiers: these appear in logs, metrics and records. */
export const plainName = z.string().regex(/^[a-z0-9][a-z0-9_-]{0,31}$/, "expected lower-case letters, digits, - and _");

/** An address or a network in CIDR notation, as IpList accepts it. */
export const network = z
  .string()
  .max(64)
  .refine(isNetwork, "expected an IP address, or a network such as 10.0.0.0/8 or 2001:db8::/32");

/** JSON escapes can contain half of a surrogate pair, which UTF-8 cannot represent. */
const wholeText = z.string().regex(/^\P{Cs}*$/u, "expected whole characters");

/** A path, or an address to listen on: the system takes none with such a character, or only what stands before it. */
export const plainPath = z
  .string()
  .min(1)
  .refine((text) => !text.includes("\0"), "expected text without the character \\u0000");

/** A person's remark. */
export const note = wholeText.max(500);

/** A model's name, as clients or providers use it. */
const modelName = wholeText.min(1).max(maxNameLength);

/** A glob of such names; `*` stands for any run of characters. */
export const modelGlob = modelName.refine((glob) => starsOf(glob) <= maxStars, `expected at most ${maxStars} stars`);

/** The name of one model, where a glob would be meaningless. */
export const plainModel = modelName.refine((name) => starsOf(name) === 0, "expected the name of a model, without *");

/** A currency code of ISO 4217. */
export const currencyCode = z
  .string()
  .refine((code) => currencies.has(code), "expected a currency code of ISO 4217 such as CNY");

/** An IANA time zone. */
export const timezone = z.string().refine(isTimezone, "expected an IANA time zone such as Asia/Shanghai");

/** A date and time with an offset, as in JSON; restricted to times that a TOML file can represent. */
export const isoInstant = z.iso
  .datetime({ offset: true, error: "expected a date and time with an offset, such as 2026-12-31T18:00:00+08:00" })
  .refine((text) => isTomlTime(Date.parse(text)), "expected a time between the years 1 and 9999 in UTC");

/** A date, or a date and time with or without an offset; a time alone is refused. */
export const moment = z
  .date()
  .refine(
    (date) => !(date instanceof TomlDate && date.isTime()),
    "expected a date such as 2026-09-10 or 2026-09-10T00:00:00+08:00",
  );

/** A calendar day, without a time. */
export const day = z
  .date()
  .refine((date) => date instanceof TomlDate && date.isDate(), "expected a date without a time, such as 2026-10-01");

/** A decimal from 0 to `max` with at most 9 places, so that it is a whole number of nano-units. */
export function nanoDecimal(max: number) {
  return z
    .number()
    .min(0)
    .max(max)
    .refine((amount) => amount < 0 || amount > max || isNano(amount), "expected at most 9 decimal places");
}

/** Whether an amount of money is a whole number of nano-units within range. */
export function isNano(amount: number): boolean {
  try {
    parseNano(amount);
    return true;
  } catch {
    return false;
  }
}

/** Whether Intl knows a time zone. */
export function isTimezone(name: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}
