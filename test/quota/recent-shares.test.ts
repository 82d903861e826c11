import { expect, it } from "vitest";
import type { ChargeRecord } from "../../src/quota/memory/charge-record.ts";
import { createRecentShares } from "../../src/quota/memory/recent-shares.ts";
import { charge } from "../support/ledger.ts";

it("keeps what each member used apart, also where both chose the same request id in the same millisecond", () => {
  const shares = createRecentShares();
  const recordOf = (user: string): ChargeRecord => ({
    kind: "charge",
    at: 5,
    user,
    requestId: "same",
    model: "m",
    charge: charge(1, 10),
    from: { log: "00.a", seq: 1 },
  });
  for (const user of ["alice", "bob"]) shares.note(recordOf(user), charge(1, 10));
  shares.note(recordOf("bob"), charge(1, 30));
  expect(shares.since(4).map(({ tokens }) => tokens)).toEqual([10, 30]);
  expect(shares.since(5)).toEqual([]);
});
