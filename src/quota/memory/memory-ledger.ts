import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { asOfGroup, encodeLedgerRecord, type LedgerRecord, type SettleRecord } from "./charge-record.ts";
import type { Config } from "../../config/schema.ts";
import { AppError } from "../../errors.ts";
import { journalFolders, openJournalArchive } from "./journal-archive.ts";
import { createJournalGate } from "./journal-gate.ts";
import { createJournalRepair } from "./journal-repair.ts";
import { createLedgerFollower, type LedgerFollower } from "./ledger-follower.ts";
import { createLateSettlements } from "./late-settlements.ts";
import type { BucketState, Hold, Ledger, LedgerHealth, QuotaLimit, QuotaProblem, ReserveRequest } from "../ledger.ts";
import type { Clock } from "../../lib/clock.ts";
import { diskOps, type FileOps } from "../../lib/files/file-ops.ts";
import { openJournal } from "../../lib/journal/journal.ts";
import { streamJournal } from "../../lib/journal/journal-stream.ts";
import type { Log } from "../../lib/log.ts";
import { accountName, groupAccount, isGroupAccount } from "../accounts.ts";
import { isCharge, partOf } from "../amounts.ts";
import { quotaExceeded } from "../quota-exceeded.ts";
import { type CountedAccounts, type HoldBackend, isUsage, MemoryHold } from "./memory-hold.ts";
import { createPeriods } from "../periods.ts";
import { recover } from "./recovery.ts";
import { usageDir } from "./snapshot-format.ts";
import { RequestAccounts } from "./request-accounts.ts";
import { createSnapshots, removeSnapshotLeftovers } from "./snapshots.ts";
import { createUsageArchive } from "../usage/usage-archive.ts";
import { UsageDay } from "../usage/usage-history.ts";
import { createUsageQueries } from "../usage/usage-queries.ts";
import { UserQuota } from "./user-quota.ts";

/** Location and rules of the ledger. */
export interface MemoryLedgerOptions {
  /** The users folder; must exist, and its lock must be held. */
  readonly usersDir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly quota: Pick<Config["quota"], "timezone" | "monthly_reset_day">;
  readonly storage: Pick<
    Config["storage"],
    "durability" | "sync_interval_ms" | "snapshot_interval_seconds" | "segment_bytes"
  > &
    // Default: journal files that are no longer needed are removed.
    Partial<Pick<Config["storage"], "journal_archive_days">>;
  /** Default: 90 days are kept. */
  readonly usage: Config["usage"];
  /** The ids of a user's API keys. Only some deleted keys are remembered. Default: all are kept. */
  readonly keyIdsOf?: (user: string) => Promise<readonly string[]>;
  /** How often to try to repair a failed journal, in ms. Default: 1000. */
  readonly repairIntervalMs?: number;
  readonly ops?: FileOps;
}

/** A user's API keys with counts beyond which those of deleted keys are forgotten. */
const maxKeys = 200;
/** How far ahead of the clock a period may have begun, in ms, without a warning. */
const aheadToleranceMs = 60_000;

/** A ledger in this process's memory: it responds synchronously, and the journal makes it durable. */
export interface MemoryLedger extends Ledger {
  problems(): readonly QuotaProblem[];
  health(): LedgerHealth;
  reserve(request: ReserveRequest): Hold;
  buckets(user: string, limits: readonly QuotaLimit[]): readonly BucketState[];
  /**
   * Gives periods that begin in the future the current bounds, and keeps what was used in them. For when a clock was
   * wrong for a while; if this clock is behind, it would give back used quota later.
   * @param user absent: all users
   * @returns the affected users
   */
  bringBack(user?: string): Promise<readonly string[]>;
  /** The ledger as a replica of the one that all processes share. */
  readonly follower: LedgerFollower;
  /** For metrics: what a power loss would lose now, and outdated snapshots. */
  stats(): {
    readonly lagRecords: number;
    readonly lagBytes: number;
    readonly pending: number;
  };
}

/**
 * Recovers all earlier counts and starts counting. Rejects if the journal cannot be trusted, with a message for the
 * operator that names the file. A user whose snapshot cannot be used gets `storage_unavailable` for everything.
 */
export async function openMemoryLedger(options: MemoryLedgerOptions): Promise<MemoryLedger> {
  const { usersDir, clock, log, quota, storage, repairIntervalMs = 1000, ops = diskOps } = options;
  const keepDays = options.usage.keep_days;
  const periodAt = createPeriods({ timezone: quota.timezone, monthlyResetDay: quota.monthly_reset_day });
  await mkdir(usageDir(usersDir), { recursive: true, mode: 0o700 });
  await removeSnapshotLeftovers(usersDir);
  const journalDir = join(usersDir, "journal");
  const archive = createUsageArchive({ folder: usageDir(usersDir), keepDays, log, ops });
  const recovered = await recover({ usersDir, journalDir, periodAt, archive, keepDays, log, ops });
  const { users, unusable, totals, changed, content, coveredSeq, totalsCoverSeq, positions } = recovered;
  const dayOf = (at: number): string => periodAt("day", at).date;
  const archiveDays = storage.journal_archive_days ?? 0;
  const journalArchive =
    archiveDays > 0
      ? await openJournalArchive({ journalDir, keepDays: archiveDays, clock, dayOf, log, ops })
      : undefined;

  const journal = openJournal({
    folder: journalDir,
    content,
    minimumSeq: coveredSeq + 1,
    ops,
    segmentBytes: storage.segment_bytes,
    syncIntervalMs: storage.sync_interval_ms,
    onFailure: (error) => {
      log.error({ err: error }, "the journal has failed; nothing billable is served until it is repaired");
      repair.begin();
    },
    ...(journalArchive === undefined ? {} : { retire: journalArchive.retire }),
  });
  const gate = createJournalGate(journal, clock);
  const intervalMs = storage.snapshot_interval_seconds * 1000;
  const today = (): string => dayOf(clock.now());
  const snapshots = createSnapshots({
    usersDir,
    archive,
    journal,
    totals,
    totalsCoverSeq,
    intervalMs,
    today,
    log,
    ops,
    positions,
    // What is missing in an unusable file exists nowhere else.
    keepJournal: unusable.size > 0,
  });
  const late = createLateSettlements((accounts, record) => write(accounts, record));
  /** Users whose API keys are being looked up. */
  const forgetting = new Set<UserQuota>();
  const repair = createJournalRepair({ journal, snapshots, late, intervalMs: repairIntervalMs, log });
  for (const counted of changed) snapshots.changed(counted);
  await realignAll();
  warnAhead();

  const holdBackend: HoldBackend = {
    now: () => clock.now(),
    write,
    safe: (seq) => (storage.durability === "strict" ? gate.synced(seq) : undefined),
    settle(accounts, record) {
      try {
        if (!isCharge(record.final) || !isUsage(record.usage)) throw new RangeError("a final charge is not of amounts");
        write(accounts, record);
      } catch (error) {
        const isRefused = error instanceof AppError;
        if (!isRefused || !late.keep({ accounts, record })) lost(record, error);
        else repair.begin();
      }
    },
  };

  /** Returns the record's number. */
  function write({ user, group }: CountedAccounts, record: LedgerRecord): number {
    // The journal first: if it refuses, nothing has been charged. One record for both accounts: a crash leaves both or
    // neither, and each snapshot says by its number whether it has the record.
    const seq = gate.record(encodeLedgerRecord(record));
    user.count(record);
    if (!unusable.has(user.name)) snapshots.changed(user);
    if (group !== undefined && "group" in record && record.group !== undefined) {
      group.count(asOfGroup(record, record.group));
      if (!unusable.has(group.name)) snapshots.changed(group);
    }
    // What is changed by hand in a group's account was used by no user.
    if (!isGroupAccount(user.name)) totals.count(user.history.dateAt(record.at), record);
    snapshots.changed(totals);
    return seq;
  }

  function lost({ user, requestId, outcome, final }: SettleRecord, reason: unknown): void {
    const line = { err: reason, user, requestId, outcome, charge: final };
    log.error(line, "a final charge was lost; the first one stands");
  }

  /**
   * After a change of the time zone or the reset day, running periods get their new bounds. These are written at once:
   * a second recovery from the old bounds would lead to different sums.
   */
  async function realignAll(): Promise<void> {
    const now = clock.now();
    const moved = [...users.values()].filter((user) => user.realign(now));
    if (moved.length === 0) return;
    for (const user of moved) snapshots.changed(user);
    await snapshots.round();
  }

  /** Users with something counted at a time in the future. */
  function ahead(): readonly UserQuota[] {
    const latest = clock.now() + aheadToleranceMs;
    return [...users.values()].filter(({ counts }) => counts.begunAt > latest);
  }

  function warnAhead(): void {
    const names = ahead().map(({ name }) => name);
    if (names.length === 0) return;
    log.warn(
      { event: "quota_ahead", users: names.slice(0, 20), count: names.length },
      "periods of users begin in the future: a clock was ahead, or this one is behind. They end only then; see `npm run quota -- bring-back`",
    );
  }

  /** Forgets the counts of deleted API keys. A key that is made meanwhile stays. */
  async function forgetDeletedKeys(user: UserQuota): Promise<void> {
    const { keyIdsOf } = options;
    if (keyIdsOf === undefined || forgetting.has(user)) return;
    forgetting.add(user);
    try {
      const counted = new Set(user.keys.keys());
      const ids = new Set(await keyIdsOf(user.name));
      user.keepKeys((id) => ids.has(id) || !counted.has(id));
    } catch (error) {
      log.warn({ err: error, user: user.name }, "the deleted API keys of a user are not known: their counts are kept");
    } finally {
      forgetting.delete(user);
    }
  }

  /** The quota of a user, or of a group's account, with expired periods cleared. */
  function current(name: string): UserQuota {
    if (unusable.has(name)) {
      const whose = isGroupAccount(name) ? `the group ${name.slice(1)} has` : "you have";
      const message = `What ${whose} used cannot be read at the moment. The operator has to mend a file.`;
      throw new AppError("storage_unavailable", { message });
    }
    const user = users.get(name) ?? added(name);
    user.lookAt(clock.now());
    return user;
  }

  function added(name: string): UserQuota {
    if (!accountName.test(name)) throw new RangeError(`${JSON.stringify(name)} is no user name`);
    const user = new UserQuota(name, periodAt);
    users.set(name, user);
    return user;
  }

  return {
    reserve(request) {
      const { upperBound, limits } = request;
      if (!isCharge(upperBound)) throw new RangeError("a charge must be of safe integers >= 0");
      gate.check();
      const user = current(request.user);
      if (isGroupAccount(user.name)) throw new RangeError("a group makes no requests");
      const group = request.group === undefined ? undefined : current(groupAccount(request.group));
      const accounts = new RequestAccounts(user, group, request);
      if (user.keys.size > maxKeys) void forgetDeletedKeys(user);
      const blocking = accounts.blocking(limits, upperBound);
      if (blocking !== undefined) throw quotaExceeded(blocking, upperBound);
      return new MemoryHold(holdBackend, accounts, request);
    },
    buckets(name, limits) {
      const user = current(name);
      return limits.map((limit) =>
        (limit.group === undefined ? user : current(groupAccount(limit.group))).bucket(limit),
      );
    },
    adjust(name, delta, note) {
      const user = current(name);
      const at = user.lookAt(clock.now());
      const [added, taken] = [partOf(delta, 1), partOf(delta, -1)];
      return holdBackend.safe(write(only(user), { kind: "adjust", at, user: name, added, taken, ...note }));
    },
    reset(name, per, note) {
      const user = current(name);
      const at = user.resetAt(clock.now());
      return holdBackend.safe(write(only(user), { kind: "reset", at, user: name, per, ...note }));
    },
    async bringBack(only) {
      const now = clock.now();
      const moved: string[] = [];
      for (const user of ahead()) {
        if (only !== undefined && user.name !== only) continue;
        const date = today();
        // Usage that a clock that was ahead has moved to the archive before the day was over.
        const archived = await archive.read(user.name, { from: date, to: date });
        if (!user.bringBack(now, new UsageDay(date, archived))) continue;
        moved.push(user.name);
        snapshots.changed(user);
      }
      return moved;
    },
    follower: createLedgerFollower({
      users,
      positions,
      logged: recovered.logged,
      // What counts in an account whose file can't be used is kept in the journal alone.
      account: (name) => (unusable.has(name) ? new UserQuota(name, periodAt) : (users.get(name) ?? added(name))),
      write,
      passed: () => {
        snapshots.changed(totals);
      },
      synced: () => journal.synced(journal.lastSeq()),
      adopt(name, past) {
        if (unusable.has(name)) return;
        const before = current(name);
        const user = new UserQuota(name, periodAt, { ...past, days: before.history.days });
        users.set(name, user);
        snapshots.replaced(before);
        snapshots.changed(user);
        snapshots.changed(totals);
      },
      save: () => snapshots.round(),
    }),
    ...createUsageQueries({ users, totals, archive }),
    recorded: (after) => streamJournal(journalFolders(journalDir), after),
    missingBefore: () => null,
    problems: () => [...unusable.values()],
    health: () => gate.health(),
    stats: () => {
      const { records, bytes } = journal.lag();
      return { lagRecords: records, lagBytes: bytes, pending: snapshots.pending() };
    },
    async close() {
      await repair.stop();
      const missing = late.takeAll();
      for (const { record } of missing) lost(record, journal.failure());
      await snapshots.close();
      await journalArchive?.close();
      await journal.close();
      if (missing.length > 0) throw new Error(`${missing.length} final charges could not be written`);
    },
  };
}

/** For changes by hand, each of which concerns one account. */
function only(user: UserQuota): CountedAccounts {
  return { user, group: undefined };
}
