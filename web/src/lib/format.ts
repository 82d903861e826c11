import { formatCount, localeTag, locale, t } from "./i18n.ts";
import { session } from "./session.ts";

const formats = new Map<string, Intl.DateTimeFormat>();

/** The zone of days and times here: that of reports, so that a time and its day agree. */
export function zone(): string {
  return session.value?.timezone ?? "UTC";
}

function dateFormat(name: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = `${name} ${locale.value} ${zone()}`;
  const known = formats.get(key);
  if (known !== undefined) return known;
  const made = new Intl.DateTimeFormat(localeTag(), { ...options, timeZone: zone(), hourCycle: "h23" });
  formats.set(key, made);
  return made;
}

/** Date and time to the second, with the zone. */
export function exactTime(iso: string): string {
  const format = dateFormat("exact", {
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    timeZoneName: "short",
  });
  return format.format(new Date(iso));
}

/** The time of day with seconds. */
export function clockTime(ms: number): string {
  return dateFormat("clock", { hour: "2-digit", minute: "2-digit", second: "2-digit" }).format(ms);
}

/** The time of day in minutes. */
export function minuteTime(ms: number): string {
  return dateFormat("minute", { hour: "2-digit", minute: "2-digit" }).format(ms);
}

const steps = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
] as const;

const relatives = new Map<string, Intl.RelativeTimeFormat>();

/** "3 minutes ago", "in 2 days". */
export function relativeTime(iso: string, now = Date.now()): string {
  const seconds = (Date.parse(iso) - now) / 1000;
  let format = relatives.get(locale.value);
  if (format === undefined)
    relatives.set(locale.value, (format = new Intl.RelativeTimeFormat(localeTag(), { numeric: "auto" })));
  for (const [unit, size] of steps) {
    if (Math.abs(seconds) >= size) return format.format(Math.trunc(seconds / size), unit);
  }
  return Math.abs(seconds) < 10 ? t("justNow") : format.format(Math.trunc(seconds), "second");
}

/** ms as "820 ms", "12.4 s" or "3 min". */
export function duration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 5_400_000) return `${Math.round(ms / 60_000)} min`;
  return `${(ms / 3_600_000).toFixed(1)} h`;
}

/** A count in a tight space: 1,234 or 12.3k. */
export function tight(value: number): string {
  if (Math.abs(value) < 10_000) return formatCount(value);
  if (Math.abs(value) < 1e6) return `${(value / 1e3).toFixed(1)}k`;
  return Math.abs(value) < 1e9 ? `${(value / 1e6).toFixed(1)}M` : `${(value / 1e9).toFixed(1)}G`;
}

/** Nano-units as an exact decimal. They are below 2^53, so that no digit is lost. */
export function nanoText(nano: number): string {
  const sign = nano < 0 ? "-" : "";
  const digits = String(Math.abs(nano)).padStart(10, "0");
  const fraction = trimZeros(digits.slice(-9));
  return `${sign}${digits.slice(0, -9)}${fraction === "" ? "" : `.${fraction}`}`;
}

/** Without zeros at the end. */
function trimZeros(digits: string): string {
  let end = digits.length;
  while (end > 0 && digits[end - 1] === "0") end -= 1;
  return digits.slice(0, end);
}

/** An exact decimal as nano-units. */
export function toNano(text: string): number {
  const [whole = "0", fraction = ""] = text.replace("-", "").split(".", 2);
  const nano = Number(whole) * 1e9 + Number(fraction.padEnd(9, "0").slice(0, 9));
  return text.startsWith("-") ? -nano : nano;
}

/**
 * An exact decimal with at most four digits that matter behind the point: 0.00491234 is 0.004912, 12.34567 is 12.34.
 * Cut, not rounded: what is left of a limit must not look like more than it is.
 */
export function shortDecimal(text: string): string {
  const [whole = "0", fraction = ""] = text.split(".", 2);
  if (fraction === "") return text;
  const zeros = fraction.search(/[1-9]|$/);
  const places = whole === "0" || whole === "-0" ? Math.min(9, zeros + 4) : 2;
  return fraction.length <= places ? text : `${whole}.${fraction.slice(0, places)}`;
}

/** A day YYYY-MM-DD, so many days after another. */
export function shiftDay(day: string, days: number): string {
  return new Date(Date.parse(`${day}T00:00:00Z`) + days * 86_400_000).toISOString().slice(0, 10);
}

/** Today in the zone of reports, YYYY-MM-DD. */
export function today(now = Date.now()): string {
  return new Intl.DateTimeFormat("en-CA", {
    timeZone: zone(),
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
  }).format(now);
}
