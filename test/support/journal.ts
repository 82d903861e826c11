import { readdirSync } from "node:fs";
import { join } from "node:path";
import { type Journal, openJournal, recoverJournal } from "../../src/lib/journal/journal.ts";
import type { JournalContent } from "../../src/lib/journal/journal-folder.ts";
import type { FileOps } from "../../src/lib/files/file-ops.ts";

export interface OpenedJournal {
  readonly journal: Journal;
  readonly content: JournalContent;
  /** What was in it, as "seq payload". */
  readonly records: readonly string[];
}

interface TestJournalOptions {
  readonly segmentBytes?: number;
  readonly syncIntervalMs?: number;
  readonly minimumSeq?: number;
  readonly onFailure?: (error: Error) => void;
  readonly ops?: FileOps;
}

/** Recovers and opens the journal in `folder`; it syncs by itself only when asked to. */
export async function openTestJournal(folder: string, options: TestJournalOptions = {}): Promise<OpenedJournal> {
  const records: string[] = [];
  const journalDir = join(folder, "journal");
  const content = await recoverJournal(
    journalDir,
    (seq, payload) => records.push(`${seq} ${payload}`),
    options.ops === undefined ? {} : { ops: options.ops },
  );
  const defaults = { segmentBytes: 1 << 20, syncIntervalMs: 1e6 };
  return { journal: openJournal({ ...defaults, ...options, folder: journalDir, content }), content, records };
}

/** The paths of the journal's files in `folder`, oldest first, without those of its archive. */
export function journalFiles(folder: string): string[] {
  return readdirSync(join(folder, "journal"))
    .filter((name) => name !== "archive")
    .sort()
    .map((name) => join(folder, "journal", name));
}
