import { groupAccount } from "../accounts.ts";
import type { LedgerRecord, LogPosition } from "./charge-record.ts";
import type { CountedAccounts } from "./memory-hold.ts";
import type { UserQuota } from "./user-quota.ts";

/** A ledger as the replica of one that all processes share: it counts what was decided there. */
export interface LedgerFollower {
  /**
   * Writes a record of the shared log to the journal, and counts it. Its position goes with it: after a crash both are
   * known, or neither. Throws AppError storage_unavailable, and then nothing has been done.
   */
  apply(record: LedgerRecord & { readonly from: LogPosition }): void;
  /** The number of the newest record of each tag that has been counted or passed. */
  readonly positions: ReadonlyMap<string, number>;
  /** Moves a tag's position past records that count nothing, or to where a new log begins. */
  pass(position: LogPosition): void;
  /** What the journal had of the log at the start, oldest first. */
  readonly logged: readonly LedgerRecord[];
  /** The accounts in which something was counted, groups' included. */
  readonly accounts: ReadonlyMap<string, UserQuota>;
  /** Resolves when all that has been applied is on disk. */
  synced(): Promise<void>;
}

export interface LedgerFollowerOptions {
  readonly users: ReadonlyMap<string, UserQuota>;
  readonly positions: Map<string, number>;
  readonly logged: readonly LedgerRecord[];
  /** The account to count in. */
  readonly account: (name: string) => UserQuota;
  /** Throws where the journal refuses the record. */
  readonly write: (accounts: CountedAccounts, record: LedgerRecord) => void;
  /** Called when a position has moved without a record. */
  readonly passed: () => void;
  readonly synced: () => Promise<void>;
}

/** Makes the follower of a ledger in memory. */
export function createLedgerFollower(options: LedgerFollowerOptions): LedgerFollower {
  const { users, positions, logged, account, write, passed, synced } = options;
  return {
    apply(record) {
      const share = "group" in record ? record.group : undefined;
      const group = share === undefined ? undefined : account(groupAccount(share.name));
      write({ user: account(record.user), group }, record);
      positions.set(record.from.tag, record.from.seq);
    },
    positions,
    pass({ tag, seq }) {
      if (positions.get(tag) === seq) return;
      positions.set(tag, seq);
      passed();
    },
    logged,
    accounts: users,
    synced,
  };
}
