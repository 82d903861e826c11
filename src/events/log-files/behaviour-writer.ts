import { mkdir } from "node:fs/promises";
import path from "node:path";
import { type AppendFile, openAppendFile } from "../../lib/files/append-file.ts";
import type { Clock } from "../../lib/clock.ts";
import { behaviourFileName, lastPart } from "./behaviour-files.ts";

/** Writes lines to the right file. One call at a time: it keeps handles without locks. */
export interface BehaviourWriter {
  /**
   * Appends lines to a folder's log of a day, and continues in a new file once one is full. Written lines are removed
   * from `lines`, so after an error the unwritten ones remain.
   */
  write(folder: string, day: string, lines: string[]): Promise<void>;
  /** Closes all files. */
  close(): Promise<void>;
}

interface OpenLog {
  readonly folder: string;
  readonly day: string;
  part: number;
  file: AppendFile;
  /** Monotonic ms at which the file was last known to be at its path. */
  seenAt: number;
}

/** Bytes per write, unless a single line is longer. */
const maxWriteBytes = 64 << 10;
/** An open file may be deleted or renamed, as by logrotate: how often to check, in ms. */
const checkEveryMs = 1000;

export function createBehaviourWriter(options: {
  /** The parent of the users' folders. */
  readonly usersDir: string;
  /** Size in bytes at which a new file is started. */
  readonly maxFileBytes: number;
  readonly clock: Clock;
  /** Maximum number of open files. */
  readonly maxOpen?: number;
  /** For tests of a failing disk. */
  readonly openFile?: (path: string) => Promise<AppendFile>;
}): BehaviourWriter {
  const { usersDir, maxFileBytes, clock, maxOpen = 64, openFile = openAppendFile } = options;
  /** Least recently used first. */
  const open = new Map<string, OpenLog>();

  async function openPart(folder: string, day: string, part: number): Promise<OpenLog> {
    const file = await openFile(path.join(usersDir, folder, behaviourFileName(day, part)));
    return { folder, day, part, file, seenAt: clock.monotonic() };
  }

  async function openLast(folder: string, day: string): Promise<OpenLog> {
    const dir = path.join(usersDir, folder);
    await mkdir(dir, { recursive: true, mode: 0o700 });
    return openPart(folder, day, await lastPart(dir, day));
  }

  async function forget(key: string, log: OpenLog): Promise<void> {
    open.delete(key);
    // The lines are written or still held by the caller: nothing depends on whether closing succeeds.
    await log.file.close().catch(() => undefined);
  }

  async function keep(key: string, log: OpenLog): Promise<void> {
    open.delete(key);
    open.set(key, log);
    const [oldest] = open;
    if (open.size > maxOpen && oldest !== undefined) await forget(...oldest);
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
        while (lines.length > 0) {
          if (log.file.size > 0 && log.file.size + firstBytes(lines) > maxFileBytes) await roll(log);
          const room = Math.min(maxWriteBytes, maxFileBytes - log.file.size);
          const count = countThatFit(lines, room);
          await log.file.append(Buffer.from(lines.slice(0, count).join("")));
          lines.splice(0, count);
        }
      } catch (error) {
        await forget(key, log);
        throw error;
      }
    },
    async close() {
      for (const [key, log] of [...open]) await forget(key, log);
    },
  };
}

function firstBytes(lines: readonly string[]): number {
  return Buffer.byteLength(lines[0] ?? "");
}

/** At least one, even if it does not fit: a line is never split. */
function countThatFit(lines: readonly string[], room: number): number {
  let count = 0;
  let bytes = 0;
  for (const line of lines) {
    bytes += Buffer.byteLength(line);
    if (bytes > room) break;
    count += 1;
  }
  return Math.max(count, 1);
}
