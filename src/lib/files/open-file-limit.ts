import { readFileSync } from "node:fs";

/** Descriptors that journal, logs, user files and listeners need besides connections. */
const ownFiles = 64;
/** At least and at most that many log files are kept open. */
const [fewestLogFiles, mostLogFiles] = [64, 1024];

/**
 * This process's limit of open files (RLIMIT_NOFILE, getrlimit(2)). undefined if it is unknown: it is read on Linux only.
 *
 * @param readLimits returns the text of /proc/self/limits
 */
export function openFileLimit(
  readLimits = (): string => readFileSync("/proc/self/limits", "utf8"),
): number | undefined {
  let text: string;
  try {
    text = readLimits();
  } catch {
    return undefined;
  }
  const soft = /^Max open files +(\d+)/m.exec(text)?.[1];
  return soft === undefined ? undefined : Number(soft);
}

/** How many log files to keep open, under the limit of open files: a twentieth, from 64 to 1024. */
export function logFileCap(limit = openFileLimit()): number {
  return Math.max(fewestLogFiles, Math.min(mostLogFiles, Math.floor((limit ?? 0) / 20)));
}

/**
 * How many connections may be accepted at once so that each can have one to a provider, under the limit of open files.
 * undefined if that is unknown.
 *
 * @param readLimits as openFileLimit
 */
export function connectionsUnderFileLimit(readLimits?: () => string): number | undefined {
  const limit = openFileLimit(readLimits);
  return limit === undefined
    ? undefined
    : Math.max(8, Math.floor((limit - ownFiles - (logFileCap(limit) - fewestLogFiles)) / 2));
}

/**
 * How many connections to accept: as many as are asked for, but never more than there are descriptors for; half of the
 * limit of open files where no number is asked for.
 */
export function connectionCap(asked: number | undefined, most = connectionsUnderFileLimit()): number {
  return Math.min(asked ?? Infinity, most ?? Infinity);
}

/** The longest backlog that the system allows a listening socket (net.core.somaxconn). undefined if it is unknown. */
export function longestBacklog(): number | undefined {
  try {
    const most = Number.parseInt(readFileSync("/proc/sys/net/core/somaxconn", "utf8"), 10);
    return Number.isNaN(most) ? undefined : most;
  } catch {
    return undefined;
  }
}
