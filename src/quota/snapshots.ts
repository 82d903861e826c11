import { removeTemporaries, syncFolder, writeFileAtomic } from "../lib/atomic-file.ts";
import type { FileOps } from "../lib/file-ops.ts";
import type { Journal } from "../lib/journal.ts";
import type { Log } from "../lib/log.ts";
import { snapshotPath } from "./recovery.ts";
import { encodeSnapshot } from "./snapshot-format.ts";
import type { UserQuota } from "./user-quota.ts";

/** Files written at once: few, because the journal's syncs and password hashes use the same four threads. */
const writesAtOnce = 2;

/** Writes the quotas that have changed to users/NAME.quota.toml. */
export interface Snapshots {
  /** Notes that a user's quota differs from its file. */
  changed(user: UserQuota): void;
  /**
   * Writes all that have changed, then drops the part of the journal that is covered. Never rejects: what could not be
   * written is tried again in the next round, and the journal is kept until then. A call during a round waits for it
   * and then makes another.
   */
  round(): Promise<void>;
  /** Stops the rounds and makes a last one. */
  close(): Promise<void>;
  /** How many wait to be written. */
  pending(): number;
}

/** What the snapshots are made of. */
export interface SnapshotsOptions {
  readonly usersDir: string;
  readonly journal: Journal;
  readonly intervalMs: number;
  readonly log: Log;
  readonly ops: FileOps;
}

/** Begins the rounds, one every `intervalMs`; a slow disk makes them fewer, never two at a time. */
export function createSnapshots({ usersDir, journal, intervalMs, log, ops }: SnapshotsOptions): Snapshots {
  const changed = new Set<UserQuota>();
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
    const queue = [...changed];
    const failed: UserQuota[] = [];
    const workers = Array.from({ length: writesAtOnce }, async () => {
      for (let user = queue.pop(); user !== undefined; user = queue.pop()) {
        if (!(await write(user))) failed.push(user);
      }
    });
    await Promise.all(workers);
    for (const user of failed) changed.add(user);
    if (failed.length > 0) return;
    try {
      // The new files must last before the records that they replace go.
      await syncFolder(usersDir, ops);
      await journal.dropThrough(upTo);
    } catch (error) {
      log.warn({ err: error }, "covered journal files could not be removed; trying again later");
    }
  }

  async function write(user: UserQuota): Promise<boolean> {
    // From here on a new charge is not in this file, so it marks the user again.
    changed.delete(user);
    const path = snapshotPath(usersDir, user.name);
    try {
      const text = encodeSnapshot({ user, coversSeq: journal.lastSeq() });
      await writeFileAtomic(path, text, { syncFolder: false, ops });
      return true;
    } catch (error) {
      log.warn({ err: error, file: path }, "a quota could not be written; the old file stands, trying again later");
      return false;
    }
  }

  async function round(): Promise<void> {
    while (running !== undefined) await running;
    await (running = runRound());
  }

  return {
    changed: (user) => void changed.add(user),
    round,
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
}
