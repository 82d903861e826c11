import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { readPlainFile } from "../../lib/files/atomic-file.ts";
import { fileErrorCode, type FileOps } from "../../lib/files/file-ops.ts";
import { type JournalContent, type OnFile, readJournal } from "../../lib/journal/journal-folder.ts";
import { recoverJournal } from "../../lib/journal/journal.ts";
import type { Log } from "../../lib/log.ts";
import { accountName, groupAccount, isGroupAccount } from "../accounts.ts";
import { asOfGroup, decodeLedgerRecord, type LedgerRecord } from "./charge-record.ts";
import type { QuotaProblem, UsageRow, UsageSpan } from "../ledger.ts";
import type { PeriodAt } from "../periods.ts";
import {
  type CoveredLogs,
  coversSeqOf,
  decodeSnapshot,
  decodeTotals,
  snapshotPath,
  totalsPath,
  type Snapshot,
} from "./snapshot-format.ts";
import type { UsageArchive } from "../usage/usage-archive.ts";
import { UsageDay } from "../usage/usage-history.ts";
import { createUsageQueries } from "../usage/usage-queries.ts";
import { totalsName, UsageTotals } from "../usage/usage-totals.ts";
import { movePosition } from "./ledger-follower.ts";
import { UserQuota } from "./user-quota.ts";

const snapshotName = /^(.*)\.quota\.toml$/;
/** Files read concurrently: enough to keep the disk busy. */
const readsAtOnce = 32;
/** Records of shared logs that are remembered beyond the journal: more than a loss of Redis concerns. */
const keptOfLog = 20_000;
const allDays: UsageSpan = { from: "0000-01-01", to: "9999-12-31" };

/** Everything that was counted before the process started. */
export interface Recovered {
  readonly users: Map<string, UserQuota>;
  /** By user: files that cannot be used. These users' usage is unknown. */
  readonly unusable: ReadonlyMap<string, QuotaProblem>;
  readonly totals: UsageTotals;
  /** Those whose snapshot on disk is outdated. */
  readonly changed: readonly (UserQuota | UsageTotals)[];
  readonly content: JournalContent;
  /** Journal records up to this number are in some snapshot, even if the journal has lost them. */
  readonly coveredSeq: number;
  /** The last record included in the totals' file; 0 if the file is missing or can't be used. */
  readonly totalsCoverSeq: number;
  /** By shared log, how far it was counted: one log of each tag. */
  readonly positions: Map<string, number>;
  /** What the journal still has of these logs, oldest first. */
  readonly logged: readonly LedgerRecord[];
}

interface Entry extends Snapshot {
  /** Whether the journal has newer records than the snapshot. */
  changed: boolean;
}

interface TotalsEntry {
  readonly totals: UsageTotals;
  readonly coversSeq: number;
  readonly logs: CoveredLogs;
  /** As above. */
  changed: boolean;
}

export interface RecoveryOptions {
  readonly usersDir: string;
  readonly journalDir: string;
  readonly periodAt: PeriodAt;
  readonly archive: UsageArchive;
  /** Days of totals to keep. */
  readonly keepDays: number;
  readonly log: Log;
  readonly ops: FileOps;
  /** Changes nothing: what a start would cut off the journal stays. */
  readonly readOnly?: boolean;
}

/**
 * Reads the snapshots, then the journal, and counts each record that the snapshot of its user, or of its group, doesn't
 * cover: these may be of different ages. An unusable snapshot affects only its user, or its group.
 *
 * @throws Error if the journal cannot be trusted: continuing without it would give back used quota
 */
export async function recover(options: RecoveryOptions): Promise<Recovered> {
  const { usersDir, journalDir, periodAt, log, ops } = options;
  const { entries, unusable } = await readSnapshots(usersDir, periodAt, log);
  const known = await readTotals(options);
  let totals = known?.totals;
  let coveredSeq = known?.coversSeq ?? 0;
  for (const { coversSeq } of entries.values()) coveredSeq = Math.max(coveredSeq, coversSeq);
  // The totals are written last: what their file covers, all files together cover. Without it that is known less
  // precisely, and not at all if another file can't be used.
  const coveredByAll = known?.coversSeq ?? (unusable.size > 0 ? Infinity : coveredSeq);

  const positions = new Map(known?.logs.positions);
  let logged: LedgerRecord[] = [];

  /** Counts a record in an account, unless the account's snapshot has it. */
  function countIn(name: string, seq: number, record: LedgerRecord): UserQuota {
    let entry = entries.get(name);
    if (entry === undefined) {
      entry = { user: new UserQuota(name, periodAt), coversSeq: 0, changed: true };
      entries.set(name, entry);
    }
    if (seq > entry.coversSeq) {
      entry.user.count(record);
      entry.changed = true;
    }
    return entry.user;
  }

  const onRecord = (seq: number, payload: string): void => {
    const record = decodeLedgerRecord(payload);
    if (record === undefined) return;
    if (record.from !== undefined) {
      if (seq > (known?.logs.seq ?? 0)) movePosition(positions, record.from);
      logged.push(record);
      if (logged.length >= 2 * keptOfLog) logged = logged.slice(-keptOfLog);
    }
    const user = countIn(record.user, seq, record);
    if ("group" in record && record.group !== undefined) {
      countIn(groupAccount(record.group.name), seq, asOfGroup(record, record.group));
    }
    if (known !== undefined && seq > known.coversSeq) {
      if (!isGroupAccount(record.user)) known.totals.count(user.history.dateAt(record.at), record);
      known.changed = true;
    }
  };
  const onFile: OnFile = ({ index, count, records }) => {
    if (index > 0) log.info({ file: index + 1, files: count, records }, "reading the journal");
  };
  const content =
    options.readOnly === true
      ? readJournal(journalDir, onRecord, onFile, coveredByAll)
      : await recoverJournal(journalDir, onRecord, { ops, coveredSeq: coveredByAll, onFile });
  if (content.torn !== undefined && options.readOnly !== true) {
    log.warn(content.torn, "cut off the end of the journal, an interrupted write that was never acknowledged");
  }
  // The journal has only part of their usage, which must not replace their files.
  for (const name of unusable.keys()) entries.delete(name);
  const users = new Map([...entries].map(([name, { user }]) => [name, user]));
  totals ??= await addUp(users, options);
  for (const { history } of users.values()) history.forgetInFlight();
  totals.forgetInFlight();
  const changed: (UserQuota | UsageTotals)[] = [...entries.values()]
    .filter((one) => one.changed)
    .map(({ user }) => user);
  if (known?.changed !== false) changed.push(totals);
  const totalsCoverSeq = known?.coversSeq ?? 0;
  return { users, unusable, totals, changed, content, coveredSeq, totalsCoverSeq, positions, logged };
}

/**
 * The last journal record covered by the snapshots of a folder, as a start would see it; for commands that read only
 * the journal.
 */
export async function readCoveredSeq(usersDir: string): Promise<number> {
  try {
    return decodeTotals(await readPlainFile(totalsPath(usersDir))).coversSeq;
  } catch {
    const names = (await readdir(usersDir)).filter((file) => accountName.test(snapshotName.exec(file)?.[1] ?? ""));
    const read = names.map(async (file) => readPlainFile(join(usersDir, file)).then(coversSeqOf, () => 0));
    return Math.max(0, ...(await Promise.all(read)));
  }
}

/** Totals are only for reading: if their file is missing or cannot be used, they are recomputed from all users. */
async function readTotals(options: RecoveryOptions): Promise<TotalsEntry | undefined> {
  const { usersDir, archive, keepDays, log } = options;
  const path = totalsPath(usersDir);
  try {
    const { days, coversSeq, logs } = decodeTotals(await readPlainFile(path));
    const open = new Set(days.map(({ date }) => date));
    const archived = new Map<string, UsageRow[]>();
    // Rows archived after this snapshot will be counted again from the journal.
    for (const row of await archive.read(totalsName, allDays, coversSeq)) {
      if (!open.has(row.day)) archived.set(row.day, [...(archived.get(row.day) ?? []), row]);
    }
    const closed = [...archived].map(([date, rows]) => {
      const day = new UsageDay(date, rows);
      day.state = "archived";
      return day;
    });
    return { totals: new UsageTotals(keepDays, [...closed, ...days]), coversSeq, logs, changed: false };
  } catch (error) {
    if (fileErrorCode(error) !== "ENOENT") log.warn({ err: error, file: path }, "the totals of usage cannot be used");
    return undefined;
  }
}

async function addUp(
  users: ReadonlyMap<string, UserQuota>,
  { keepDays, archive, log }: RecoveryOptions,
): Promise<UsageTotals> {
  const totals = new UsageTotals(keepDays);
  const queries = createUsageQueries({ users, totals, archive });
  try {
    for await (const { row } of queries.usageOfAll(allDays)) totals.add(row);
  } catch (error) {
    log.error({ err: error }, "the totals of usage are not complete: an archive of usage cannot be read");
  }
  return totals;
}

async function readSnapshots(usersDir: string, periodAt: PeriodAt, log: Log) {
  const names: string[] = [];
  for (const file of await readdir(usersDir)) {
    const name = snapshotName.exec(file)?.[1];
    if (name === undefined || name.startsWith(".")) continue;
    if (accountName.test(name)) names.push(name);
    else log.warn({ file: join(usersDir, file) }, "ignored a quota file whose name is not one of a user");
  }
  const entries = new Map<string, Entry>();
  const unusable = new Map<string, QuotaProblem>();
  const read = async (name: string): Promise<void> => {
    const path = snapshotPath(usersDir, name);
    try {
      const snapshot = decodeSnapshot(await readPlainFile(path), name, periodAt);
      entries.set(name, { ...snapshot, changed: false });
    } catch (error) {
      // The first line of TOML's message; the others show the file.
      const [reason = ""] = (error instanceof Error ? error.message : String(error)).split("\n", 1);
      const problem = { file: basename(path), reason };
      unusable.set(name, problem);
      log.error(
        problem,
        "a quota file cannot be used: its user gets nothing billable until it is restored from a backup, or deleted " +
          "to begin at zero, and the proxy restarted",
      );
    }
  };
  for (let start = 0; start < names.length; start += readsAtOnce) {
    await Promise.all(names.slice(start, start + readsAtOnce).map(read));
  }
  return { entries, unusable };
}
