import { readFileSync } from "node:fs";

/** Descriptors that journal, logs, user files and listeners need besides connections. */
const ownFiles = 64;

/**
 * How many connections may be accepted at once so that each can have one to a provider, under this process's limit of
 * open files (RLIMIT_NOFILE, getrlimit(2)). undefined if the limit is unknown: it is read on Linux only.
 *
 * @param readLimits returns the text of /proc/self/limits
 */
export function connectionsUnderFileLimit(
  readLimits = (): string => readFileSync("/proc/self/limits", "utf8"),
): number | undefined {
  let text: string;
  try {
    text = readLimits();
  } catch {
    return undefined;
  }
  const soft = /^Max open files +(\d+)/m.exec(text)?.[1];
  return soft === undefined ? undefined : Math.max(8, Math.floor((Number(soft) - ownFiles) / 2));
}
