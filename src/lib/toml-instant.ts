import { TomlDate } from "smol-toml";
import type { WallClock } from "./wall-clock.ts";

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
