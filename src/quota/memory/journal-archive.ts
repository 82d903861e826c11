import { mkdir, readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Clock } from "../../lib/clock.ts";
import { createDayWitness } from "../../lib/files/day-witness.ts";
import { fileErrorCode, type FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";

/** Keeps journal files that snapshots cover, so that bills can be recomputed. */
export interface JournalArchive {
  /**
   * Moves a file to the archive. Rejects with Node's error, and then the file stays where it was: even on a full disk,
   * the journal continues and keeps it.
   */
  readonly retire: (path: string) => Promise<void>;
  /** Stops the daily removal of files that are too old. */
  readonly close: () => void;
}

export interface JournalArchiveOptions {
  readonly journalDir: string;
  /** Days that a file is kept after its last record. */
  readonly keepDays: number;
  readonly clock: Clock;
  /** The local date of a time in ms, YYYY-MM-DD. */
  readonly dayOf: (at: number) => string;
  readonly log: Log;
  readonly ops: FileOps;
}

const dayMs = 86_400_000;
const fileName = /^\d{16}\.journal$/;

/** The archive's folder: below the journal, because a file can only be moved within one file system. */
function journalArchiveDir(journalDir: string): string {
  return join(journalDir, "archive");
}

/** The paths of the files in an archive, oldest first; none if there is no archive. */
export async function archivedJournalFiles(journalDir: string): Promise<readonly string[]> {
  const folder = journalArchiveDir(journalDir);
  const names = await readdir(folder).catch((error: unknown) => {
    if (fileErrorCode(error) === "ENOENT") return [];
    throw error;
  });
  return names
    .filter((name) => fileName.test(name))
    .sort()
    .map((name) => join(folder, name));
}

/** Removes files that are too old, now and once a day. Never rejects: failures are logged and retried. */
export async function openJournalArchive(options: JournalArchiveOptions): Promise<JournalArchive> {
  const { journalDir, keepDays, clock, dayOf, log, ops } = options;
  const folder = journalArchiveDir(journalDir);
  const witness = createDayWitness({
    file: join(folder, ".days"),
    newestDay: async () => {
      const newest = Math.max(...(await lastWrites()).map(({ at }) => at));
      return Number.isFinite(newest) ? dayOf(newest) : undefined;
    },
    firstGapDays: keepDays,
    log,
  });

  /** Nothing is written to a file after its last record. */
  async function lastWrites(): Promise<readonly { readonly file: string; readonly at: number }[]> {
    const files = await archivedJournalFiles(journalDir);
    return Promise.all(files.map(async (file) => ({ file, at: (await stat(file)).mtimeMs })));
  }

  async function prune(): Promise<void> {
    try {
      const now = clock.now();
      await mkdir(folder, { recursive: true, mode: 0o700 });
      if (!(await witness.believes(dayOf(now)))) return;
      let written = 0;
      for (const { file, at } of await lastWrites()) {
        // A clock was ahead.
        if (at > now) continue;
        // Files are in order: one dated before its predecessor was written while a clock was behind.
        written = Math.max(written, at);
        if (written < now - keepDays * dayMs) await ops.unlink(file);
      }
    } catch (err) {
      log.warn({ err, folder }, "old journal files could not be removed from the archive; trying again in a day");
    }
  }

  await prune();
  const timer = setInterval(() => void prune(), dayMs);
  timer.unref();
  return {
    async retire(path) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await ops.rename(path, join(folder, basename(path)));
    },
    close: () => {
      clearInterval(timer);
    },
  };
}
