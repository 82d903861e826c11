import type { Journal } from "../../lib/journal/journal.ts";
import type { Log } from "../../lib/log.ts";
import type { LateSettlements } from "./late-settlements.ts";
import type { Snapshots } from "./snapshots.ts";

/** Repairs the journal after a disk failure, without a restart. */
export interface JournalRepair {
  /** Starts a repair: retries until it succeeds. */
  begin(): void;
  /** Tries once more, if a repair is pending, and then stops. */
  stop(): Promise<void>;
}

export interface JournalRepairOptions {
  readonly journal: Journal;
  readonly snapshots: Pick<Snapshots, "coverAll">;
  readonly late: Pick<LateSettlements, "flush" | "count">;
  /** Interval between two attempts, in ms. */
  readonly intervalMs: number;
  readonly log: Log;
}

/**
 * A failed sync must not be repeated: the kernel has dropped the pages that it could not write, and the next sync would
 * succeed without them. But everything that was appended is in memory too. So snapshots are written that cover all of
 * it, the journal's files are removed, and the next record starts a new one. Then the postponed final charges are
 * written.
 */
export function createJournalRepair({
  journal,
  snapshots,
  late,
  intervalMs,
  log,
}: JournalRepairOptions): JournalRepair {
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<boolean> | undefined;
  let stopped = false;

  async function attempt(): Promise<boolean> {
    if (journal.failure() !== undefined) {
      if (!(await snapshots.coverAll())) return false;
      await journal.startOver();
      log.warn({ event: "journal_repaired" }, "the journal accepts records again: snapshots cover everything in it");
    }
    return late.flush();
  }

  async function tryOnce(): Promise<boolean> {
    try {
      return await attempt();
    } catch (error) {
      log.warn({ err: error }, "the journal could not be repaired; retrying");
      return false;
    }
  }

  function arm(): void {
    if (timer !== undefined || running !== undefined || stopped) return;
    timer = setTimeout(run, intervalMs);
    timer.unref();
  }

  function run(): void {
    timer = undefined;
    running = tryOnce();
    void running.then((done) => {
      running = undefined;
      if (!done) arm();
    });
  }

  return {
    begin: arm,
    async stop() {
      stopped = true;
      clearTimeout(timer);
      timer = undefined;
      await running;
      if (journal.failure() !== undefined || late.count() > 0) await tryOnce();
    },
  };
}
