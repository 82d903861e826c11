import { removeTemporaries, syncFolder, writeFileAtomic } from "../../lib/files/atomic-file.ts";
import type { FileOps } from "../../lib/files/file-ops.ts";
import type { Journal } from "../../lib/journal/journal.ts";
import type { Log } from "../../lib/log.ts";
import {
  type CoveredLogs,
  encodeSnapshot,
  encodeTotals,
  snapshotPath,
  totalsPath,
  usageDir,
} from "./snapshot-format.ts";
import type { UsageArchive } from "../usage/usage-archive.ts";
import { UsageTotals } from "../usage/usage-totals.ts";
import { UserQuota } from "./user-quota.ts";

/** Files written concurrently: few, because the journal's syncs and password hashes use the same four threads. */
const writesAtOnce = 2;

/** Writes changed quotas to users/NAME.quota.toml, and the usage totals to their own file. */
export interface Snapshots {
  /** Marks a user or the totals as different from the file. */
  changed(counted: UserQuota | UsageTotals): void;
  /** A user whose place another object has taken. */
  replaced(user: UserQuota): void;
  /**
   * Writes everything that has changed, then drops the covered part of the journal. Never rejects: failed writes are
   * retried in the next round, and the journal is kept until then. A call during a round waits for it and then starts
   * another.
   */
  round(): Promise<void>;
  /**
   * Runs a round, and returns whether the files on disk now cover every record of the journal. For when the journal
   * accepts no more: nothing may be appended meanwhile.
   */
  coverAll(): Promise<boolean>;
  /** Stops the rounds and runs a last one. */
  close(): Promise<void>;
  /** The number of files to write. */
  pending(): number;
}

export interface SnapshotsOptions {
  readonly usersDir: string;
  readonly archive: UsageArchive;
  readonly journal: Journal;
  readonly totals: UsageTotals;
  /** The last record covered by the totals' file found at the start; 0 if there is none. */
  readonly totalsCoverSeq: number;
  readonly intervalMs: number;
  /** Today's local date, YYYY-MM-DD. */
  readonly today: () => string;
  readonly log: Log;
  readonly ops: FileOps;
  /** Whether the journal has records that no snapshot will cover. */
  readonly keepJournal: boolean;
  /** By shared log, how far it has been counted; empty where there is none. */
  readonly positions: ReadonlyMap<string, number>;
}

/** Starts the rounds, one every `intervalMs`; a slow disk makes them fewer, never concurrent. */
export function createSnapshots(options: SnapshotsOptions): Snapshots {
  const { usersDir, archive, journal, totals, intervalMs, log, ops } = options;
  const changed = new Set<UserQuota | UsageTotals>();
  let totalsCoverSeq = options.totalsCoverSeq;
  /** The last record that all files certainly contain, even after a power loss. */
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
    // As of now: what is counted from here on may not be in the files of this round.
    const logs = { positions: new Map(options.positions), seq: upTo };
    const queue = [...changed].filter((counted) => counted instanceof UserQuota);
    let failures = 0;
    const workers = Array.from({ length: writesAtOnce }, async () => {
      for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
        if (!(await write(next))) failures++;
      }
    });
    await Promise.all(workers);
    if (failures > 0) return;
    // The totals come last, so that their number says what all files together cover: a start uses it to decide whether
    // a missing journal file is allowed to be missing.
    try {
      if (logs.positions.size > 0) await syncFolder(usersDir, ops);
    } catch (error) {
      log.warn({ err: error }, "the users folder could not be synced; trying again later");
      return;
    }
    if (changed.has(totals) && !(await write(totals, logs))) return;
    if (options.keepJournal) return;
    try {
      // The new files must be durable before the records that they replace are removed.
      await syncFolder(usersDir, ops);
      coveredSeq = Math.min(upTo, totalsCoverSeq);
      await journal.dropThrough(coveredSeq);
    } catch (error) {
      log.warn({ err: error }, "covered journal files could not be removed; trying again later");
    }
  }

  async function write(counted: UserQuota | UsageTotals, logs?: CoveredLogs): Promise<boolean> {
    const isTotals = counted instanceof UsageTotals;
    const path = isTotals ? totalsPath(usersDir) : snapshotPath(usersDir, counted.name);
    try {
      await archiveClosed(counted.name, isTotals ? counted : counted.history);
      const coversSeq = journal.lastSeq();
      const text = isTotals ? encodeTotals(counted, coversSeq, logs) : encodeSnapshot(counted, coversSeq);
      // From here on a new charge is not in this text, so it marks its user again.
      changed.delete(counted);
      await writeFileAtomic(path, text, { syncFolder: isTotals, ops });
      if (isTotals) totalsCoverSeq = coversSeq;
      // Its positions are older than its sums: the next round brings both together before any journal file goes.
      if (logs !== undefined && isBehind(logs)) changed.add(counted);
      return true;
    } catch (error) {
      changed.add(counted);
      log.warn({ err: error, file: path }, "a quota could not be written; the old file stands, trying again later");
      return false;
    }
  }

  function isBehind({ positions }: CoveredLogs): boolean {
    return [...options.positions].some(([log, seq]) => positions.get(log) !== seq);
  }

  /** Past days go to the archive, and are durable there, before the snapshot omits them. */
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
    replaced: (user) => void changed.delete(user),
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

/** Removes the temporary snapshot files of a killed process. */
export async function removeSnapshotLeftovers(usersDir: string): Promise<void> {
  await removeTemporaries(usersDir, ".quota.toml");
  await removeTemporaries(usageDir(usersDir), "");
}
