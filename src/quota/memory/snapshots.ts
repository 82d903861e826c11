import { removeTemporaries, syncFolder, writeFileAtomic } from "../../lib/files/atomic-file.ts";
import type { FileOps } from "../../lib/files/file-ops.ts";
import type { Journal } from "../../lib/journal/journal.ts";
import type { Log } from "../../lib/log.ts";
import { encodeSnapshot, encodeTotals, snapshotPath, totalsPath, usageDir } from "./snapshot-format.ts";
import type { UsageArchive } from "../usage/usage-archive.ts";
import { UsageTotals } from "../usage/usage-totals.ts";
import { UserQuota } from "./user-quota.ts";

/** Files written at once: few, because the journal's syncs and password hashes use the same four threads. */
const writesAtOnce = 2;

/** Writes the quotas that have changed to users/NAME.quota.toml, and the totals of usage to a file of their own. */
export interface Snapshots {
  /** Notes that something differs from its file. */
  changed(counted: UserQuota | UsageTotals): void;
  /**
   * Writes all that have changed, then drops the part of the journal that is covered. Never rejects: what could not be
   * written is tried again in the next round, and the journal is kept until then. A call during a round waits for it
   * and then makes another.
   */
  round(): Promise<void>;
  /**
   * Makes a round, and returns whether the files on disk now hold every record of the journal. For when the journal can
   * take no more: nothing may be appended meanwhile.
   */
  coverAll(): Promise<boolean>;
  /** Stops the rounds and makes a last one. */
  close(): Promise<void>;
  /** How many files wait to be written. */
  pending(): number;
}

/** What the snapshots are made of. */
export interface SnapshotsOptions {
  readonly usersDir: string;
  readonly archive: UsageArchive;
  readonly journal: Journal;
  readonly totals: UsageTotals;
  /** The last record that is in the totals' file as it was found; 0 where there is none. */
  readonly totalsCoverSeq: number;
  readonly intervalMs: number;
  /** The local date now, YYYY-MM-DD. */
  readonly today: () => string;
  readonly log: Log;
  readonly ops: FileOps;
  /** Whether the journal has records that no snapshot will cover. */
  readonly keepJournal: boolean;
}

/** Begins the rounds, one every `intervalMs`; a slow disk makes them fewer, never two at a time. */
export function createSnapshots(options: SnapshotsOptions): Snapshots {
  const { usersDir, archive, journal, totals, intervalMs, log, ops } = options;
  const changed = new Set<UserQuota | UsageTotals>();
  let totalsCoverSeq = options.totalsCoverSeq;
  /** The last record that all files hold for certain, power loss included. */
  let coveredSeq = 0;
  let running: Promise<void> | undefined;
  const timer = setInterval(() => {
    if (changed.size > 0) running ??= runRound();
  }, intervalMs);
  timer.unref();

  async function runRound(): Promise<void> {
    try {
      await writeAll();
    } finally {
      running = undefined;
    }
  }

  async function writeAll(): Promise<void> {
    const upTo = journal.lastSeq();
    const queue = [...changed].filter((counted) => counted instanceof UserQuota);
    let failures = 0;
    const workers = Array.from({ length: writesAtOnce }, async () => {
      for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
        if (!(await write(next))) failures++;
      }
    });
    await Promise.all(workers);
    if (failures > 0) return;
    // The totals come last, so that their number says what all files together cover: a start goes by it to see whether
    // a journal file that is missing may be missing.
    if (changed.has(totals) && !(await write(totals))) return;
    if (options.keepJournal) return;
    try {
      // The new files must last before the records that they replace go.
      await syncFolder(usersDir, ops);
      coveredSeq = Math.min(upTo, totalsCoverSeq);
      await journal.dropThrough(coveredSeq);
    } catch (error) {
      log.warn({ err: error }, "covered journal files could not be removed; trying again later");
    }
  }

  async function write(counted: UserQuota | UsageTotals): Promise<boolean> {
    const isTotals = counted instanceof UsageTotals;
    const path = isTotals ? totalsPath(usersDir) : snapshotPath(usersDir, counted.name);
    try {
      await archiveClosed(counted.name, isTotals ? counted : counted.history);
      const coversSeq = journal.lastSeq();
      const text = isTotals ? encodeTotals(counted, coversSeq) : encodeSnapshot(counted, coversSeq);
      // From here on a new charge is not in this text, so it marks its user again.
      changed.delete(counted);
      await writeFileAtomic(path, text, { syncFolder: isTotals, ops });
      if (isTotals) totalsCoverSeq = coversSeq;
      return true;
    } catch (error) {
      changed.add(counted);
      log.warn({ err: error, file: path }, "a quota could not be written; the old file stands, trying again later");
      return false;
    }
  }

  /** Days that are over go to the archive, and last there, before the snapshot leaves them out. */
  async function archiveClosed(name: string, history: Pick<UsageTotals, "closed" | "archived">): Promise<void> {
    const days = history.closed(options.today());
    if (days.length === 0) return;
    await archive.append(name, days, journal.lastSeq());
    history.archived(days);
  }

  async function round(): Promise<void> {
    while (running !== undefined) await running;
    await (running = runRound());
  }

  return {
    changed: (counted) => void changed.add(counted),
    round,
    async coverAll() {
      changed.add(totals);
      await round();
      return coveredSeq === journal.lastSeq();
    },
    async close() {
      clearInterval(timer);
      await round();
    },
    pending: () => changed.size,
  };
}

/** Removes what a killed process left of its snapshots. */
export async function removeSnapshotLeftovers(usersDir: string): Promise<void> {
  await removeTemporaries(usersDir, ".quota.toml");
  await removeTemporaries(usageDir(usersDir), "");
}
