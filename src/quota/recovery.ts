import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { readPlainFile } from "../lib/files/atomic-file.ts";
import { fileErrorCode, type FileOps } from "../lib/files/file-ops.ts";
import type { JournalContent } from "../lib/journal/journal-folder.ts";
import { recoverJournal } from "../lib/journal/journal-recovery.ts";
import type { Log } from "../lib/log.ts";
import { decodeLedgerRecord, userName } from "./charge-record.ts";
import type { UsageRow, UsageSpan } from "./ledger.ts";
import type { PeriodAt } from "./period.ts";
import { decodeSnapshot, decodeTotals, snapshotPath, totalsPath, type Snapshot } from "./snapshot-format.ts";
import type { UsageArchive } from "./usage/usage-archive.ts";
import { UsageDay } from "./usage/usage-day.ts";
import { createUsageQueries } from "./usage/usage-queries.ts";
import { totalsName, UsageTotals } from "./usage/usage-totals.ts";
import { UserQuota } from "./user-quota.ts";

const snapshotName = /^(.*)\.quota\.toml$/;
/** Files read at once: enough to keep the disk busy. */
const readsAtOnce = 32;
const allDays: UsageSpan = { from: "0000-01-01", to: "9999-12-31" };

/** Everything that was counted before the process began. */
export interface Recovered {
  readonly users: Map<string, UserQuota>;
  readonly totals: UsageTotals;
  /** Those whose snapshot on disk is behind. */
  readonly changed: readonly (UserQuota | UsageTotals)[];
  readonly content: JournalContent;
  /** Journal records up to this number are in some snapshot, even where the journal has lost them. */
  readonly coveredSeq: number;
}

interface Entry extends Snapshot {
  /** Whether the journal has something newer than the snapshot. */
  changed: boolean;
}

interface TotalsEntry {
  readonly totals: UsageTotals;
  readonly coversSeq: number;
  /** As above. */
  changed: boolean;
}

/** Where to recover from. */
export interface RecoveryOptions {
  readonly usersDir: string;
  readonly journalDir: string;
  readonly periodAt: PeriodAt;
  readonly archive: UsageArchive;
  /** Days of totals that are kept. */
  readonly keepDays: number;
  readonly log: Log;
  readonly ops: FileOps;
}

/**
 * Reads the snapshots, then the journal, and counts each record that the user's snapshot doesn't cover.
 * Throws where a snapshot or the journal cannot be trusted: to go on without it would give used quota back.
 */
export async function recover(options: RecoveryOptions): Promise<Recovered> {
  const { usersDir, journalDir, periodAt, log, ops } = options;
  const entries = await readSnapshots(usersDir, periodAt, log);
  const known = await readTotals(options);
  let totals = known?.totals;
  let coveredSeq = known?.coversSeq ?? 0;
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
      if (seq > entry.coversSeq) {
        entry.user.count(record);
        entry.changed = true;
      }
      if (known !== undefined && seq > known.coversSeq) {
        known.totals.count(entry.user.history.dateAt(record.at), record);
        known.changed = true;
      }
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
  totals ??= await addUp(users, options);
  for (const { history } of users.values()) history.forgetInFlight();
  totals.forgetInFlight();
  const changed: (UserQuota | UsageTotals)[] = [...entries.values()]
    .filter((one) => one.changed)
    .map(({ user }) => user);
  if (known?.changed !== false) changed.push(totals);
  return { users, totals, changed, content, coveredSeq };
}

/** Totals are only for reading: where their file is missing or cannot be used, they are added up anew from all users. */
async function readTotals(options: RecoveryOptions): Promise<TotalsEntry | undefined> {
  const { usersDir, archive, keepDays, log } = options;
  const path = totalsPath(usersDir);
  try {
    const { days, coversSeq } = decodeTotals(await readPlainFile(path));
    const open = new Set(days.map(({ date }) => date));
    const archived = new Map<string, UsageRow[]>();
    // What was archived after this snapshot will be counted again from the journal.
    for (const row of await archive.read(totalsName, allDays, coversSeq)) {
      if (!open.has(row.day)) archived.set(row.day, [...(archived.get(row.day) ?? []), row]);
    }
    const closed = [...archived].map(([date, rows]) => {
      const day = new UsageDay(date, rows);
      day.state = "archived";
      return day;
    });
    return { totals: new UsageTotals(keepDays, [...closed, ...days]), coversSeq, changed: false };
  } catch (error) {
    if (fileErrorCode(error) !== "ENOENT") log.warn({ err: error, file: path }, "the totals of usage cannot be used");
    return undefined;
  }
}

async function addUp(
  users: ReadonlyMap<string, UserQuota>,
  { keepDays, archive }: RecoveryOptions,
): Promise<UsageTotals> {
  const totals = new UsageTotals(keepDays);
  const queries = createUsageQueries({ users, totals, archive });
  for await (const { row } of queries.usageOfAll(allDays)) totals.add(row);
  return totals;
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
