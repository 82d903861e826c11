import { mkdir } from "node:fs/promises";
import path from "node:path";
import { type AppendFile, openAppendFile } from "../../lib/files/append-file.ts";
import type { Clock } from "../../lib/clock.ts";
import { logFileCap } from "../../lib/files/open-file-limit.ts";
import { behaviourFileName, lastPart } from "./behaviour-files.ts";

/** Writes lines to the right file. One call at a time for a folder and a day: it keeps handles without locks. */
export interface BehaviourWriter {
  /**
   * Appends lines to a folder's log of a day, and continues in a new file once one is full. `rest` is what has not been
   * written yet: empty in the end, whole lines after an error.
   */
  write(folder: string, day: string, lines: { rest: Buffer }): Promise<void>;
  /** Closes all files; the next lines open them again. Not while lines are being written. */
  close(): Promise<void>;
}

interface OpenLog {
  readonly folder: string;
  readonly day: string;
  part: number;
  file: AppendFile;
  /** Monotonic ms at which the file was last known to be at its path. */
  seenAt: number;
  /** While it is written to. */
  isBusy: boolean;
}

/** Bytes per write, unless a single line is longer. */
const maxWriteBytes = 1 << 20;
/** An open file may be deleted or renamed, as by logrotate: how often to check, in ms. */
const checkEveryMs = 1000;
const lineFeed = 0x0a;

export function createBehaviourWriter(options: {
  /** The parent of the users' folders. */
  readonly usersDir: string;
  /** Size in bytes at which a new file is started. */
  readonly maxFileBytes: number;
  readonly clock: Clock;
  /** Maximum number of open files, but for those that are written to at the moment. */
  readonly maxOpen?: number;
  /** For tests of a failing disk. */
  readonly openFile?: (path: string) => Promise<AppendFile>;
}): BehaviourWriter {
  const { usersDir, maxFileBytes, clock, maxOpen = logFileCap(), openFile = openAppendFile } = options;
  /** Least recently used first. */
  const open = new Map<string, OpenLog>();

  async function openPart(folder: string, day: string, part: number): Promise<OpenLog> {
    const file = await openFile(path.join(usersDir, folder, behaviourFileName(day, part)));
    return { folder, day, part, file, seenAt: clock.monotonic(), isBusy: true };
  }

  async function openLast(folder: string, day: string): Promise<OpenLog> {
    const dir = path.join(usersDir, folder);
    let part = await lastPart(dir, day);
    if (part === null) {
      await mkdir(dir, { recursive: true, mode: 0o700 });
      part = 0;
    }
    return openPart(folder, day, part);
  }

  async function forget(key: string, log: OpenLog): Promise<void> {
    open.delete(key);
    // The lines are written or still held by the caller: nothing depends on whether closing succeeds.
    await log.file.close().catch(() => undefined);
  }

  async function keep(key: string, log: OpenLog): Promise<void> {
    log.isBusy = true;
    open.delete(key);
    open.set(key, log);
    if (open.size <= maxOpen) return;
    for (const [oldKey, oldest] of open) {
      if (oldest.isBusy) continue;
      await forget(oldKey, oldest);
      return;
    }
  }

  async function find(key: string, folder: string, day: string): Promise<OpenLog> {
    const known = open.get(key);
    if (known !== undefined) {
      if (clock.monotonic() - known.seenAt < checkEveryMs) return known;
      if (!(await known.file.isDeleted())) {
        known.seenAt = clock.monotonic();
        return known;
      }
      await forget(key, known);
    }
    return openLast(folder, day);
  }

  async function roll(log: OpenLog): Promise<void> {
    const next = await openPart(log.folder, log.day, log.part + 1);
    await log.file.close().catch(() => undefined);
    log.part = next.part;
    log.file = next.file;
  }

  return {
    async write(folder, day, lines) {
      const key = `${folder}/${day}`;
      const log = await find(key, folder, day);
      await keep(key, log);
      try {
        while (lines.rest.length > 0) {
          const firstLine = lines.rest.indexOf(lineFeed) + 1;
          if (log.file.size > 0 && log.file.size + firstLine > maxFileBytes) await roll(log);
          const room = Math.min(maxWriteBytes, maxFileBytes - log.file.size);
          // At least one, even if it does not fit: a line is never split.
          const fits = Math.max(firstLine, lines.rest.lastIndexOf(lineFeed, room - 1) + 1);
          await log.file.append(lines.rest.subarray(0, fits));
          lines.rest = lines.rest.subarray(fits);
        }
      } catch (error) {
        await forget(key, log);
        throw error;
      } finally {
        log.isBusy = false;
      }
    },
    async close() {
      for (const [key, log] of [...open]) await forget(key, log);
    },
  };
}
