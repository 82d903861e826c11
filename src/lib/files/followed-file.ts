import { readFileSync, statSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import type { Log } from "../log.ts";

/** A small text file that somebody may replace while the process runs. */
export interface FollowedFile {
  /** Looks at once, blocking for one small read. For whoever has reason to believe that the file has changed. */
  check(): void;
  close(): void;
}

export interface FollowOptions {
  readonly path: string;
  /** ms between two looks. Default: a second. */
  readonly everyMs?: number;
  /**
   * Takes the text that the first look finds, and each that differs from the one before. Throws where it can't be used;
   * then the one before stays in force.
   */
  readonly onText: (text: string) => void;
  readonly log: Log;
}

/** No secret is longer, in bytes. */
const maxBytes = 1 << 20;

/**
 * Reads a file again and again, for secrets that are rotated while the process runs. It is read by its name each time:
 * so a file that was renamed into place and a link that was swapped (as Kubernetes does with `..data`) are found on
 * every file system, network ones too, which tell a watcher nothing. Keeps no process alive.
 *
 * A file that is missing or can't be used changes nothing and is logged once, by its name and without its text.
 */
export function followFile({ path, everyMs = 1000, onText, log }: FollowOptions): FollowedFile {
  let known: string | undefined;
  let problem = "";
  let isLooking = false;
  const timer = setInterval(() => void look(), everyMs).unref();

  async function look(): Promise<void> {
    if (isLooking) return;
    isLooking = true;
    try {
      mustBeSmallFile(path, await stat(path));
      take(await readFile(path, "utf8"));
    } catch (error) {
      complain(error);
    } finally {
      isLooking = false;
    }
  }

  function take(text: string): void {
    if (text !== known) {
      onText(text);
      if (known !== undefined)
        log.info({ event: "key_file_changed", file: path }, "a key file has new keys, now in force");
      known = text;
    }
    problem = "";
  }

  function complain(err: unknown): void {
    const message = err instanceof Error ? err.message : String(err);
    if (message === problem) return;
    problem = message;
    log.warn({ event: "key_file_unusable", file: path, err }, "a key file cannot be used; the old keys stay");
  }

  return {
    check() {
      try {
        mustBeSmallFile(path, statSync(path));
        take(readFileSync(path, "utf8"));
      } catch (error) {
        complain(error);
      }
    },
    close() {
      clearInterval(timer);
    },
  };
}

/** A pipe or a device could be read once, and to read it again could wait for ever. */
function mustBeSmallFile(path: string, stats: { isFile(): boolean; readonly size: number }): void {
  if (!stats.isFile()) throw new Error(`${path} is not a plain file`);
  if (stats.size > maxBytes) throw new Error(`${path} is longer than ${maxBytes} bytes`);
}
