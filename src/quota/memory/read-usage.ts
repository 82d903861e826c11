import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { diskOps, fileErrorCode } from "../../lib/files/file-ops.ts";
import { segmentPaths } from "../../lib/journal/journal-folder.ts";
import { JournalDamage } from "../../lib/journal/journal-reader.ts";
import type { Log } from "../../lib/log.ts";
import type { Ledger, QuotaProblem } from "../ledger.ts";
import type { PeriodAt } from "../periods.ts";
import { createUsageArchive } from "../usage/usage-archive.ts";
import { createUsageQueries } from "../usage/usage-queries.ts";
import { recover } from "./recovery.ts";
import { usageDir } from "./snapshot-format.ts";

/** What the files of a users folder say about usage. */
export interface ReadUsage extends Required<Pick<Ledger, "usage" | "usageOfAll">> {
  /** The last record that is counted in. */
  readonly lastSeq: number;
  /** Users whose files cannot be used. */
  readonly problems: readonly QuotaProblem[];
}

export interface ReadUsageOptions {
  readonly usersDir: string;
  readonly periodAt: PeriodAt;
  /** usage.keep_days. */
  readonly keepDays: number;
  readonly log: Log;
}

/** A running server may write snapshots and retire files while they are read: then once more. */
const attempts = 10;
const pauseMs = 200;

/** The server has retired files of the journal in the meantime. */
class JournalMovedOn extends Error {
  override readonly name = "JournalMovedOn";
}

/**
 * Reads the usage as a start would, and changes nothing: for commands beside a running server. Rejects with Node's errors
 * if the files stay unusable, with JournalDamage or JournalMovedOn if they never go together.
 */
export async function readUsage({ usersDir, periodAt, keepDays, log }: ReadUsageOptions): Promise<ReadUsage> {
  const ops = diskOps;
  const archive = createUsageArchive({ folder: usageDir(usersDir), keepDays, log, ops });
  const journalDir = join(usersDir, "journal");
  for (let tries = 1; ; tries++) {
    try {
      const [oldest] = segmentPaths(journalDir);
      const { users, totals, unusable, content, coveredSeq } = await recover({
        usersDir,
        journalDir,
        periodAt,
        archive,
        keepDays,
        log,
        ops,
        readOnly: true,
      });
      // What is retired meanwhile is in a snapshot by then, but perhaps not in the one that was read before.
      if (segmentPaths(journalDir)[0] !== oldest)
        throw new JournalMovedOn("the server moves the files of its journal faster than they can be read");
      return {
        ...createUsageQueries({ users, totals, archive }),
        lastSeq: Math.max(coveredSeq, content.nextSeq - 1),
        problems: [...unusable.values()],
      };
    } catch (error) {
      const isTooEarly = error instanceof JournalDamage || error instanceof JournalMovedOn;
      const maySettle = isTooEarly || fileErrorCode(error) === "ENOENT";
      if (!maySettle || tries === attempts) throw error;
      await sleep(pauseMs);
    }
  }
}
