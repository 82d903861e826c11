import { groupAccount } from "../accounts.ts";
import type { LedgerRecord, LogPosition } from "./charge-record.ts";
import type { CountedAccounts } from "./memory-hold.ts";
import type { Window } from "./period-counts.ts";
import type { UserQuota } from "./user-quota.ts";

/** A ledger as the replica of one that all processes share: it counts what was decided there. */
export interface LedgerFollower {
  /**
   * Writes a record of a shared log to the journal, and counts it. Its position goes with it: after a crash both are
   * known, or neither. Throws AppError storage_unavailable, and then nothing has been done.
   */
  apply(record: LedgerRecord & { readonly from: LogPosition }): void;
  /** By log, the number of the newest record that has been counted or passed; one log of each tag. */
  readonly positions: ReadonlyMap<string, number>;
  /** Moves past records that count nothing, or into a tag's next log. */
  pass(position: LogPosition): void;
  /** Replaces what counts as used in an account's running periods. Its history stays. It's on disk after save(). */
  adopt(name: string, past: AdoptedPast): void;
  /** Writes all snapshots. */
  save(): Promise<void>;
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
  readonly adopt: (name: string, past: AdoptedPast) => void;
  readonly save: () => Promise<void>;
}

/** The running periods of an account, and of its API keys by their ids. */
export interface AdoptedPast {
  readonly windows: readonly Window[];
  readonly keys: ReadonlyMap<string, readonly Window[]>;
}

/** Sets the position of a log, in the place of an earlier one of the same tag. */
export function movePosition(positions: Map<string, number>, { log, seq }: LogPosition): void {
  if (!positions.has(log)) {
    const start = log.slice(0, log.indexOf(".") + 1);
    for (const other of positions.keys()) if (other.startsWith(start)) positions.delete(other);
  }
  positions.set(log, seq);
}

/** Makes the follower of a ledger in memory. */
export function createLedgerFollower(options: LedgerFollowerOptions): LedgerFollower {
  const { users, positions, logged, account, write, passed, synced, adopt, save } = options;
  return {
    apply(record) {
      const share = "group" in record ? record.group : undefined;
      const group = share === undefined ? undefined : account(groupAccount(share.name));
      write({ user: account(record.user), group }, record);
      movePosition(positions, record.from);
    },
    positions,
    pass(position) {
      if (positions.get(position.log) === position.seq) return;
      movePosition(positions, position);
      passed();
    },
    adopt,
    save,
    logged,
    accounts: users,
    synced,
  };
}
