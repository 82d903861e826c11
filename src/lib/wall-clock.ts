import { TomlDate } from "smol-toml";

const dayMs = 86_400_000;

/**
 * The wall clock of a time zone. A reading is written as the instant in UTC at which a clock in UTC shows the same, in
 * ms since the epoch: 09:00 in Shanghai on 2026-10-01 is Date.UTC(2026, 9, 1, 9).
 */
export interface WallClock {
  /** What the clock shows at an instant, in ms. */
  readAt(instantMs: number): number;
  /**
   * The instant at which the clock shows `readingMs`: the first of the two where clocks go back over it. Where they go
   * forward over it, what it would have been without the change: 02:30 that never comes is half an hour past the change.
   */
  instantOf(readingMs: number): number;
}

/** Makes the wall clock of an IANA time zone from Intl alone. Throws RangeError for an unknown zone. */
export function createWallClock(timezone: string): WallClock {
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone: timezone,
    calendar: "gregory",
    numberingSystem: "latn",
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
    second: "numeric",
  });

  function readAt(instantMs: number): number {
    const field = { year: 0, month: 0, day: 0, hour: 0, minute: 0, second: 0 };
    for (const { type, value } of format.formatToParts(instantMs)) {
      if (type in field) field[type as keyof typeof field] = Number(value);
    }
    const ms = instantMs - Math.floor(instantMs / 1000) * 1000;
    return Date.UTC(field.year, field.month - 1, field.day, field.hour, field.minute, field.second) + ms;
  }

  const offsetAt = (instantMs: number) => readAt(instantMs) - instantMs;

  return {
    readAt,
    instantOf(readingMs) {
      // No offset is a whole day, and none changes twice in two days: one of these two holds at that time.
      const before = readingMs - offsetAt(readingMs - dayMs);
      const after = readingMs - offsetAt(readingMs + dayMs);
      return readAt(before) === readingMs || readAt(after) !== readingMs ? before : after;
    },
  };
}

const [earliest, latest] = [Date.parse("0001-01-01T00:00:00Z"), Date.parse("9999-12-31T23:59:59.999Z")];

/** Whether TOML can hold an instant in UTC: its years have four digits. @param ms since the epoch */
export function isTomlTime(ms: number): boolean {
  return ms >= earliest && ms <= latest;
}

/**
 * ISO 8601 in UTC, with a year of four digits. What a file has with an offset may lie just beyond: then it is the end
 * of the year 9999.
 *
 * @param ms since the epoch
 */
export function isoOfInstant(ms: number): string {
  return new Date(Math.min(Math.max(ms, earliest), latest)).toISOString();
}

/**
 * The instant that a date in a TOML file means, in ms since the epoch. With an offset it means the same everywhere;
 * without one it is read off `local`, and a date alone begins at midnight there.
 */
export function instantOfToml(date: Date, local: WallClock): number {
  const ms = date.getTime();
  return date instanceof TomlDate && date.isLocal() ? local.instantOf(ms) : ms;
}
