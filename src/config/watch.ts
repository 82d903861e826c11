import type { BigIntStats } from "node:fs";
import { stat } from "node:fs/promises";
import { parse } from "smol-toml";
import { readConfigText } from "./load.ts";

export interface ConfigWatchOptions {
  readonly path: string;
  /** Called once the file has changed and is complete, one call after another. */
  readonly onChange: () => Promise<unknown>;
  /** ms between two looks at the file. Default 100. */
  readonly everyMs?: number;
  /** ms for which the file must not have changed. Default 200. */
  readonly quietMs?: number;
  /** ms for which a file that looks half written, or is missing, may still be completed. Default 600. */
  readonly unfinishedMs?: number;
}

/**
 * Watches a config file until closed. It is looked up by its name each time, rather than watched by the system: so it
 * doesn't matter whether an editor writes in place, renames or deletes and creates, or whether a link above it is
 * swapped (as Kubernetes does with `..data`), and it works on file systems without change events. Doesn't keep the
 * process alive.
 *
 * A file that was renamed into place is complete. Any other may be half written: so it must be quiet for a while, and
 * for longer if it looks unfinished.
 */
export function watchConfig(options: ConfigWatchOptions): { close(): void } {
  const { path, onChange, everyMs = 100, quietMs = 200, unfinishedMs = 600 } = options;
  let closed = false;
  let timer: NodeJS.Timeout | undefined;
  /** The file as it was when it was last reported. */
  let reported: BigIntStats | null | undefined;
  let reportedText = "";
  /** The file as it was last seen, and since when, in ms of performance.now(). */
  let seen: BigIntStats | null | undefined;
  let seenSince = 0;

  async function look(): Promise<void> {
    const now = await stat(path, { bigint: true }).catch(() => null);
    if (reported === undefined) {
      // The first look, at the file that the process was started with.
      seen = reported = now;
      reportedText = textOf(path) ?? "";
      return;
    }
    if (!isSame(now, seen ?? null)) {
      seen = now;
      seenSince = performance.now();
    }
    if (isSame(now, reported)) return;
    const quietFor = performance.now() - seenSince;
    // A rename changes the time of the inode, and not that of the contents.
    const isComplete = now !== null && now.ino !== reported?.ino && now.ctimeNs > now.mtimeNs;
    if (!isComplete && quietFor < quietMs) return;
    const text = textOf(path);
    if (!isComplete && quietFor < unfinishedMs && looksUnfinished(text, reportedText)) return;
    // It may have changed since the first of the two looks.
    if (!isSame(await stat(path, { bigint: true }).catch(() => null), now)) return;
    reported = now;
    reportedText = text ?? "";
    await onChange();
  }

  function lookSoon(): void {
    timer = setTimeout(() => {
      look()
        .catch(() => undefined)
        .finally(() => {
          if (!closed) lookSoon();
        });
    }, everyMs).unref();
  }

  void look().finally(() => {
    if (!closed) lookSoon();
  });
  return {
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}

/** Whether two looks saw the same file with the same contents; null stands for no file. */
function isSame(a: BigIntStats | null, b: BigIntStats | null): boolean {
  if (a === null || b === null) return a === b;
  const isSameFile = a.dev === b.dev && a.ino === b.ino;
  return isSameFile && a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs;
}

function textOf(path: string): string | null {
  try {
    return readConfigText(path);
  } catch {
    return null;
  }
}

/** Whether more of a text is probably on its way. TOML cut off at the end of a line is often valid. */
function looksUnfinished(text: string | null, former: string): boolean {
  if (text === null || text === "" || !text.endsWith("\n")) return true;
  if (text.length < former.length && former.startsWith(text)) return true;
  try {
    parse(text);
    return false;
  } catch {
    return true;
  }
}
