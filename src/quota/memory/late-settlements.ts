import type { LedgerRecord, SettleRecord } from "./charge-record.ts";
import type { CountedAccounts } from "./memory-hold.ts";

/** Settlements kept while the journal accepts none; about 1 KB each. */
const maxKept = 10_000;

/** A final charge that the journal has not accepted yet. Until then the first charge stands, in memory as on disk. */
interface LateSettlement {
  readonly accounts: CountedAccounts;
  readonly record: SettleRecord;
}

/** Final charges that wait until the journal accepts records again. */
export interface LateSettlements {
  /** Returns false if there are too many; then it is not kept. */
  keep(settlement: LateSettlement): boolean;
  /** Writes them, oldest first, until the journal refuses one. Returns whether none is left. */
  flush(): boolean;
  /** Removes and returns the remaining ones, to be reported as lost. */
  takeAll(): readonly LateSettlement[];
  count(): number;
}

/** @param write appends a record to the journal and counts it; throws if the journal refuses it */
export function createLateSettlements(
  write: (accounts: CountedAccounts, record: LedgerRecord) => void,
): LateSettlements {
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
        for (const { accounts, record } of kept) {
          write(accounts, record);
          written++;
        }
      } catch {
        // The journal has refused another one; those it accepted are done.
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
