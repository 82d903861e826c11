import { TomlDate } from "smol-toml";
import type { WallClock } from "./wall-clock.ts";

/**
 * The instant that a date in a TOML file means, in ms since the epoch. With an offset it means the same everywhere;
 * without one it is read off `local`, and a date alone begins at midnight there.
 */
export function instantOfToml(date: Date, local: WallClock): number {
  const ms = date.getTime();
  return date instanceof TomlDate && date.isLocal() ? local.instantOf(ms) : ms;
}
