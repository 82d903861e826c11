import { constants, promises } from "node:fs";
import { dirname } from "node:path";
import { syncFolder } from "../files/atomic-file.ts";
import { diskOps, type FileOps } from "../files/file-ops.ts";
import { readJournal, type JournalContent, type OnFile } from "./journal-folder.ts";
import type { OnRecord } from "./journal-reader.ts";

/**
 * Reads the journal in `folder` (made where there is none), hands every record to `onRecord`, then cuts off what an
 * interrupted write left at its end. Throws JournalDamage, with nothing changed, where the files cannot be trusted.
 */
export async function recoverJournal(
  folder: string,
  onRecord: OnRecord,
  options: { readonly onFile?: OnFile; readonly coveredSeq?: number; readonly ops?: FileOps } = {},
): Promise<JournalContent> {
  const { onFile, coveredSeq, ops = diskOps } = options;
  await promises.mkdir(folder, { recursive: true, mode: 0o700 });
  await syncFolder(dirname(folder), ops);
  const content = readJournal(folder, onRecord, onFile, coveredSeq);
  if (content.blank !== undefined) {
    await ops.unlink(content.blank);
  } else if (content.torn !== undefined) {
    await cut(ops, content.torn.file, content.torn.offset);
  }
  return content;
}

/** The cut is synced before a newer file can be made: only the newest may be torn. */
async function cut(ops: FileOps, file: string, length: number): Promise<void> {
  const fd = await ops.open(file, constants.O_WRONLY | constants.O_NOFOLLOW, 0);
  try {
    ops.ftruncateSync(fd, length);
    await ops.fsync(fd);
  } finally {
    await ops.close(fd);
  }
}
