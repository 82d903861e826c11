import type { Journal } from "../../lib/journal/journal.ts";
import type { Log } from "../../lib/log.ts";
import type { LateSettlements } from "./late-settlements.ts";
import type { Snapshots } from "./snapshots.ts";

/** Brings the journal back after a failure of the disk, without a restart. */
export interface JournalRepair {
  /** There is something to bring back: tries until it is done. */
  begin(): void;
  /** Tries once more, if there is anything to do, and no more after that. */
  stop(): Promise<void>;
}

/** What a repair works on. */
export interface JournalRepairOptions {
  readonly journal: Journal;
  readonly snapshots: Pick<Snapshots, "coverAll">;
  readonly late: Pick<LateSettlements, "flush" | "count">;
  /** Between two attempts, in ms. */
  readonly intervalMs: number;
  readonly log: Log;
}

/**
 * A failed sync must not be repeated: the kernel has dropped the pages that it could not write, and the next sync would
 * succeed without them. But everything that was appended is in memory too. So snapshots are written that cover all of it,
 * the files of the journal go, and the next record begins a new one. Then the final charges that had to wait are written.
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
      await journal.beginAnew();
      log.warn({ event: "journal_repaired" }, "the journal takes records again: snapshots have all that was in it");
    }
    return late.flush();
  }

  async function tryOnce(): Promise<boolean> {
    try {
      return await attempt();
    } catch (error) {
      log.warn({ err: error }, "the journal could not be brought back; trying again");
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
