// Whether something that was built is older than what it was built from.
import { existsSync, readdirSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export const root = join(import.meta.dirname, "..");

function newest(path) {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...readdirSync(path).map((name) => newest(join(path, name))));
}

/** Whether a source, by its path below the root, is newer than the stamp of the last build. */
export function isStale(stamp, ...sources) {
  const path = join(root, stamp);
  if (!existsSync(path)) return true;
  return statSync(path).mtimeMs < Math.max(...sources.map((name) => newest(join(root, name))));
}

/** Notes a build that began at a time: a file saved while it ran must count as newer. */
export function mark(stamp, startedAt) {
  const path = join(root, stamp);
  writeFileSync(path, "");
  utimesSync(path, startedAt, startedAt);
}
