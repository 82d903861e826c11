import type { LedgerRecord, SettleRecord } from "./charge-record.ts";
import type { UserQuota } from "./user-quota.ts";

/** Settlements kept while the journal takes none; about 1 KB each. */
const maxKept = 10_000;

/** A final charge that the journal has not taken. Until it does, the first charge stands, in memory as on disk. */
interface LateSettlement {
  readonly user: UserQuota;
  readonly record: SettleRecord;
}

/** Final charges that wait for the journal to take records again. */
export interface LateSettlements {
  /** Returns false where there are too many, and then it is not kept. */
  keep(settlement: LateSettlement): boolean;
  /** Writes them, oldest first, as far as the journal takes them. Returns whether none is left. */
  flush(): boolean;
  /** Takes out those that are left, for whoever reports them lost. */
  takeAll(): readonly LateSettlement[];
  count(): number;
}

/** @param write appends a record to the journal and counts it; throws where the journal refuses it */
export function createLateSettlements(write: (user: UserQuota, record: LedgerRecord) => void): LateSettlements {
  let kept: LateSettlement[] = [];
  return {
    keep(settlement) {
      if (kept.length >= maxKept) return false;
      kept.push(settlement);
      return true;
    },
    flush() {
      let written = 0;
      try {
        for (const { user, record } of kept) {
          write(user, record);
          written++;
        }
      } catch {
        // The journal has refused one more; what it has taken is done with.
      }
      if (written > 0) kept = kept.slice(written);
      return kept.length === 0;
    },
    takeAll() {
      const all = kept;
      kept = [];
      return all;
    },
    count: () => kept.length,
  };
}
