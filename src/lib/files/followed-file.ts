import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import type { Log } from "../log.ts";

/** A small text file that may be replaced while the process runs. */
export interface FollowedFile {
  /** Checks at once, blocking for one small read. For callers that expect a change. */
  check(): void;
  close(): void;
}

/** The result of a look at a file. */
export interface FileOutcome {
  /** Why it can't be used; null if it can. */
  readonly error: string | null;
  /** Whether a text other than the one before is in force now. */
  readonly isChanged: boolean;
}

export interface FollowOptions {
  readonly path: string;
  /** Interval between two checks, in ms. Default: 500. */
  readonly everyMs?: number;
  /**
   * Receives the text of the first check, and each text that differs from the previous one. Throws if it can't be used;
   * then the previous one stays in force.
   */
  readonly onText: (text: string) => void;
  /** Called when another text came into force, when there is a problem, and when that is over. Must not throw. */
  readonly onOutcome?: (outcome: FileOutcome) => void;
  readonly log: Log;
}

/** No secret is longer, in bytes. */
const maxBytes = 1 << 20;

/**
 * Polls a file, for secrets that are rotated while the process runs. It is opened by name each time: so a file that was
 * renamed into place and a swapped link (as Kubernetes does with `..data`) are noticed on every file system, including
 * network file systems without change events. Doesn't keep the process alive.
 *
 * A file that is missing or can't be used changes nothing and is logged once, by its name and without its text.
 */
export function followFile({
  path,
  everyMs = 500,
  onText,
  onOutcome = () => undefined,
  log,
}: FollowOptions): FollowedFile {
  let known: string | undefined;
  let problem = "";
  let isChecking = false;
  const timer = setInterval(() => void look(), everyMs).unref();

  async function look(): Promise<void> {
    if (isChecking) return;
    isChecking = true;
    try {
      mustBeSmallFile(path, await stat(path), maxBytes);
      take(await readFile(path, "utf8"));
    } catch (error) {
      complain(error);
    } finally {
      isChecking = false;
    }
  }

  function take(text: string): void {
    const isChanged = text !== known && known !== undefined;
    if (text !== known) onText(text);
    if (isChanged) log.info({ event: "key_file_changed", file: path }, "new keys from a key file are in force");
    known = text;
    const wasBad = problem !== "";
    problem = "";
    if (isChanged || wasBad) onOutcome({ error: null, isChanged });
  }

  function complain(err: unknown): void {
    const message = err instanceof Error ? err.message : String(err);
    if (message === problem) return;
    problem = message;
    log.warn({ event: "key_file_unusable", file: path, err }, "a key file cannot be used; the old keys stay");
    onOutcome({ error: message, isChanged: false });
  }

  return {
    check() {
      try {
        take(readSmallFile(path).toString("utf8"));
      } catch (error) {
        complain(error);
      }
    },
    close() {
      clearInterval(timer);
    },
  };
}

/**
 * The contents of a file, which may be behind a link. Blocks for no longer than a disk takes: what is no plain file, or a
 * large one, is refused.
 */
export function readSmallFile(path: string, most = maxBytes): Buffer {
  // O_NONBLOCK: opening a pipe must not wait for its writer.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    mustBeSmallFile(path, fstatSync(fd), most);
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** A pipe or a device could be read only once, and reading it again could block forever. */
function mustBeSmallFile(path: string, stats: { isFile(): boolean; readonly size: number }, most: number): void {
  if (!stats.isFile()) throw new Error(`${path} is not a plain file`);
  if (stats.size > most) throw new Error(`${path} is longer than ${most} bytes`);
}
