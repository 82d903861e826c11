import { describe, expect, it } from "vitest";
import { ask, charge, everything, openTestLedger, settlement, spend, usedOf } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

/** Noon in Shanghai. */
const start = Date.parse("2026-11-22T04:00:00Z");
const dayMs = 86_400_000;
const allDays = { from: "2000-01-01", to: "2100-01-01" };

describe("changes by hand", () => {
  const note = { reason: "an import", by: "root" };

  it("count in all running periods and in the history, and last", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const ledger = await openTestLedger(folder, clock);
    await spend(ledger);
    await ledger.adjust("alice", charge(20, 500, 1000), note);
    for (const now of [ledger, await openTestLedger(folder, clock)]) {
      expect(usedOf(now, everything)).toEqual([21, 570, 570, 1123]);
      expect(await now.usage({ user: "alice", ...allDays })).toMatchObject([
        {
          model: "adjust",
          requests: 0,
          tokens: 0,
          cost: {},
          outcomes: { adjust: 1 },
          adjusted: { requests: 20, tokens: 500, cost: { CNY: 1000 } },
        },
        { requests: 1 },
      ]);
    }
  });

  it("take away at the most what is used in a period; the history has them in full", async () => {
    const clock = createManualClock(start);
    const ledger = await openTestLedger(tempDir(), clock);
    await spend(ledger);
    clock.advance(dayMs);
    await ledger.adjust("alice", charge(-1, -100, -23), note);
    expect(usedOf(ledger, everything)).toEqual([0, 0, 0, 100]);
    expect(await ledger.usage({ user: "alice", from: "2026-11-23", to: "2026-11-23" })).toMatchObject([
      { requests: 0, tokens: 0, cost: {}, adjusted: { requests: -1, tokens: -100, cost: { CNY: -23 } } },
    ]);
  });

  it("that make no sense are refused", async () => {
    const ledger = await openTestLedger(tempDir(), createManualClock(start));
    for (const delta of [charge(0.5), charge(0, NaN), charge(0, 0, 2 ** 53), charge(1, 0, 0, "yuan")]) {
      expect(() => ledger.adjust("alice", delta, note)).toThrow(RangeError);
    }
    expect(() => ledger.reset("../x", "day", note)).toThrow(RangeError);
  });

  it("reset one period until its end, and nothing else", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const ledger = await openTestLedger(folder, clock);
    await spend(ledger);
    const before = ledger.buckets("alice", everything);
    await ledger.reset("alice", "month", note);
    for (const now of [ledger, await openTestLedger(folder, clock)]) {
      expect(usedOf(now, everything)).toEqual([0, 70, 70, 123]);
      expect(now.buckets("alice", everything).map(({ resetAt }) => resetAt)).toEqual(
        before.map(({ resetAt }) => resetAt),
      );
      expect(await now.usage(allDays)).toMatchObject([{ outcomes: { reset: 1 } }, { requests: 1 }]);
    }
  });

  it("reset a period for requests in flight too: their settle does not come back into it", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const ledger = await openTestLedger(folder, clock);
    const hold = ledger.reserve(ask({ upperBound: charge(1, 100) }));
    await hold.commit(charge(1, 10));
    await ledger.reset("alice", "total", note);
    await ledger.reset("alice", "month", note);
    await spend(ledger);
    await hold.settle(settlement(charge(0), "upstream_failed"));
    for (const now of [ledger, await openTestLedger(folder, clock)]) {
      expect(usedOf(now, everything)).toEqual([1, 70, 70, 123]);
    }
  });
});
