import { TomlDate } from "smol-toml";

const dayMs = 86_400_000;

/**
 * The wall clock of a time zone. A reading is represented as the instant in UTC at which a clock in UTC shows the same,
 * in ms since the epoch: 09:00 in Shanghai on 2026-10-01 is Date.UTC(2026, 9, 1, 9).
 */
export interface WallClock {
  /** The clock's reading at an instant, in ms. */
  readAt(instantMs: number): number;
  /**
   * The instant at which the clock shows `readingMs`: the first of the two if clocks are set back over it. If they are
   * set forward over it, what it would have been without the change: a skipped 02:30 is half an hour after the change.
   */
  instantOf(readingMs: number): number;
}

/** Creates the wall clock of an IANA time zone using only Intl. Throws RangeError for an unknown zone. */
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
      // No offset is a whole day, and none changes twice in two days: one of these two applies at that time.
      const before = readingMs - offsetAt(readingMs - dayMs);
      const after = readingMs - offsetAt(readingMs + dayMs);
      return readAt(before) === readingMs || readAt(after) !== readingMs ? before : after;
    },
  };
}

const [earliest, latest] = [Date.parse("0001-01-01T00:00:00Z"), Date.parse("9999-12-31T23:59:59.999Z")];

/**
 * Whether TOML can represent an instant in UTC: its years have four digits.
 * @param ms since the epoch
 */
export function isTomlTime(ms: number): boolean {
  return ms >= earliest && ms <= latest;
}

/**
 * ISO 8601 in UTC, with a four-digit year. A date with an offset in a file may lie just beyond: it becomes the end of
 * the year 9999.
 *
 * @param ms since the epoch
 */
export function isoOfInstant(ms: number): string {
  return new Date(Math.min(Math.max(ms, earliest), latest)).toISOString();
}

/**
 * The instant of a date in a TOML file, in ms since the epoch. With an offset it is the same everywhere; without one it
 * is read from `local`, and a date alone begins at midnight there.
 */
export function instantOfToml(date: Date, local: WallClock): number {
  const ms = date.getTime();
  return date instanceof TomlDate && date.isLocal() ? local.instantOf(ms) : ms;
}
