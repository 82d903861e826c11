import type { ChargeRecord, SettleRecord } from "./charge-record.ts";
import { createGenerationMap } from "../../lib/generation-map.ts";
import type { Charge } from "../ledger.ts";

/**
 * What members have used of late in a group, each request once: a reset of the group and the charges of its members are in
 * different shared logs, so a charge that was made after the reset may come before it, and must outlast it.
 */
export interface RecentShares {
  /** A request counts as so much now. Records that come from no shared log are in order, and not kept. */
  note(record: ChargeRecord | SettleRecord, charge: Charge): void;
  /** What requests that were charged after this time, in ms since the epoch, count as. */
  since(at: number): readonly Charge[];
}

/** The latest half of these are kept in any case: more than come in the time that one log may be read ahead of another. */
const mostKept = 4000;

export function createRecentShares(): RecentShares {
  const kept = createGenerationMap<{ readonly at: number; readonly charge: Charge }>(
    mostKept,
    () => Infinity,
    () => 0,
  );
  return {
    note({ from, user, at, apiKey = "", requestId }, charge) {
      if (from === undefined) return;
      kept.set(`${user}\n${apiKey}\n${at}\n${requestId}`, { at, charge });
    },
    since: (at) => [...kept.values()].filter((each) => each.at > at).map(({ charge }) => charge),
  };
}
