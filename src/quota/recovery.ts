import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { readPlainFile } from "../lib/atomic-file.ts";
import type { FileOps } from "../lib/file-ops.ts";
import type { JournalContent } from "../lib/journal-folder.ts";
import { recoverJournal } from "../lib/journal-recovery.ts";
import type { Log } from "../lib/log.ts";
import { decodeLedgerRecord, userName, type LedgerRecord } from "./charge-record.ts";
import type { PeriodAt } from "./period.ts";
import { decodeSnapshot, type Snapshot } from "./snapshot-format.ts";
import { UserQuota } from "./user-quota.ts";

const snapshotName = /^(.*)\.quota\.toml$/;
/** Files read at once: enough to keep the disk busy. */
const readsAtOnce = 32;

/** Everything that was counted before the process began. */
export interface Recovered {
  readonly users: Map<string, UserQuota>;
  /** Those whose snapshot on disk is behind. */
  readonly changed: readonly UserQuota[];
  readonly content: JournalContent;
  /** Journal records up to this number are in some snapshot, even where the journal has lost them. */
  readonly coveredSeq: number;
}

interface Entry extends Snapshot {
  /** Whether the journal has something newer than the snapshot. */
  changed: boolean;
}

/** Where to recover from. */
export interface RecoveryOptions {
  readonly usersDir: string;
  readonly journalDir: string;
  readonly periodAt: PeriodAt;
  readonly log: Log;
  readonly ops: FileOps;
}

/**
 * Reads the snapshots, then the journal, and counts each record that the user's snapshot doesn't cover.
 * Throws where a snapshot or the journal cannot be trusted: to go on without it would give used quota back.
 */
export async function recover({ usersDir, journalDir, periodAt, log, ops }: RecoveryOptions): Promise<Recovered> {
  const entries = await readSnapshots(usersDir, periodAt, log);
  let coveredSeq = 0;
  for (const { coversSeq } of entries.values()) coveredSeq = Math.max(coveredSeq, coversSeq);

  const content = await recoverJournal(
    journalDir,
    (seq, payload) => {
      const record = decodeLedgerRecord(payload);
      if (record === undefined) return;
      let entry = entries.get(record.user);
      if (entry === undefined) {
        entry = { user: new UserQuota(record.user, periodAt, record.at), coversSeq: 0, changed: true };
        entries.set(record.user, entry);
      }
      if (seq <= entry.coversSeq) return;
      replay(entry.user, record);
      entry.changed = true;
    },
    {
      ops,
      onFile: ({ index, count, records }) => {
        if (index > 0) log.info({ file: index + 1, files: count, records }, "reading the journal");
      },
    },
  );
  if (content.torn !== undefined) {
    log.warn(content.torn, "cut off the end of the journal, an interrupted write that was never acknowledged");
  }
  const users = new Map([...entries].map(([name, { user }]) => [name, user]));
  const changed = [...entries.values()].filter((entry) => entry.changed).map(({ user }) => user);
  return { users, changed, content, coveredSeq };
}

function replay(user: UserQuota, record: LedgerRecord): void {
  if (record.kind === "charge") {
    user.advance(record.at);
    user.charge(record.charge);
  } else {
    user.replace(record.at, record.first, record.final);
  }
}

async function readSnapshots(usersDir: string, periodAt: PeriodAt, log: Log): Promise<Map<string, Entry>> {
  const names: string[] = [];
  for (const file of await readdir(usersDir)) {
    const name = snapshotName.exec(file)?.[1];
    if (name === undefined || name.startsWith(".")) continue;
    if (userName.test(name)) names.push(name);
    else log.warn({ file: join(usersDir, file) }, "ignored a quota file whose name is not one of a user");
  }
  const entries = new Map<string, Entry>();
  for (let start = 0; start < names.length; start += readsAtOnce) {
    const batch = names.slice(start, start + readsAtOnce);
    const read = await Promise.all(batch.map((name) => readSnapshot(snapshotPath(usersDir, name), name, periodAt)));
    for (const snapshot of read) entries.set(snapshot.user.name, { ...snapshot, changed: false });
  }
  return entries;
}

async function readSnapshot(path: string, name: string, periodAt: PeriodAt): Promise<Snapshot> {
  try {
    return decodeSnapshot(await readPlainFile(path), name, periodAt);
  } catch (cause) {
    throw new Error(
      `${path} cannot be used: ${cause instanceof Error ? cause.message : String(cause)}\n` +
        "The program does not start, because this user's quota would begin at zero. " +
        "Restore the file from a backup, or delete it to let exactly that happen.",
      { cause },
    );
  }
}

/** The file that holds a user's quota. `name` has been checked. */
export function snapshotPath(usersDir: string, name: string): string {
  return join(usersDir, `${name}.quota.toml`);
}
