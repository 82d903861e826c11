import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, open, readdir, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { syncFolder } from "../../lib/files/atomic-file.ts";
import type { Clock } from "../../lib/clock.ts";
import { createDayWitness } from "../../lib/files/day-witness.ts";
import { fileErrorCode, type FileOps } from "../../lib/files/file-ops.ts";
import { journalFileName } from "../../lib/journal/journal-stream.ts";
import type { Log } from "../../lib/log.ts";

/** Keeps journal files that snapshots cover, compressed, so that bills can be recomputed. */
export interface JournalArchive {
  /**
   * Moves a file to the archive, where it is compressed later. Rejects with Node's error, and then the file stays where
   * it was: even on a full disk, the journal continues and keeps it.
   */
  readonly retire: (path: string) => Promise<void>;
  /** Stops the daily removal of files that are too old, and leaves files as they are that are being compressed. */
  readonly close: () => Promise<void>;
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
/** The end of the name of a file that is being written. */
const partSuffix = ".part";

/** The folders with a journal's files, in the order in which files move. */
export function journalFolders(journalDir: string): readonly string[] {
  return [journalDir, journalArchiveDir(journalDir)];
}

/** The archive's folder: below the journal, because a file can only be moved within one file system. */
function journalArchiveDir(journalDir: string): string {
  return join(journalDir, "archive");
}

/** The paths of the files in an archive, oldest first; none if there is no archive. One may be there compressed as well. */
async function archivedJournalFiles(journalDir: string): Promise<readonly string[]> {
  const folder = journalArchiveDir(journalDir);
  const names = await readdir(folder).catch((error: unknown) => {
    if (fileErrorCode(error) === "ENOENT") return [];
    throw error;
  });
  return names
    .filter((name) => journalFileName.test(name))
    .sort()
    .map((name) => join(folder, name));
}

/**
 * Compresses files, and removes those that are too old, now and once a day. Never rejects: failures are logged and retried.
 */
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

  let compressing: Promise<void> | undefined;
  /** Files that have come, and how many of them there were when the folder was listed. */
  let come = 0;
  let listed = 0;
  const closing = new AbortController();

  /** Never rejects. */
  function compressAll(): void {
    come++;
    compressing ??= compressListed().finally(() => (compressing = undefined));
  }

  async function compressListed(): Promise<void> {
    try {
      while (listed < come && !closing.signal.aborted) {
        listed = come;
        for (const file of await archivedJournalFiles(journalDir)) {
          if (!file.endsWith(".gz")) await compress(file);
        }
      }
    } catch (err) {
      if (closing.signal.aborted) return;
      log.warn({ err, folder }, "a journal file in the archive could not be compressed; it stays as it is until later");
    }
  }

  /** Whenever this is interrupted, the file is still there, and what is beside it is written again. */
  async function compress(file: string): Promise<void> {
    closing.signal.throwIfAborted();
    const part = `${file}.gz${partSuffix}`;
    await rm(part, { force: true });
    const { atime, mtime } = await stat(file);
    const target = createWriteStream(part, { flags: "wx", mode: 0o600 });
    await pipeline(createReadStream(file), createGzip(), target, closing);
    const written = await open(part, "r+");
    try {
      await written.utimes(atime, mtime);
      await written.sync();
    } finally {
      await written.close();
    }
    await ops.rename(part, `${file}.gz`);
    await syncFolder(folder, ops);
    await ops.unlink(file);
  }

  await prune();
  compressAll();
  const timer = setInterval(() => {
    // Not while a file that is too old is being compressed.
    void Promise.resolve(compressing).then(prune).then(compressAll);
  }, dayMs);
  timer.unref();
  return {
    async retire(path) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await ops.rename(path, join(folder, basename(path)));
      compressAll();
    },
    async close() {
      clearInterval(timer);
      closing.abort();
      await compressing;
    },
  };
}
