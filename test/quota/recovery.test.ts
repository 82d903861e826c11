import { readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createCapturedLog } from "../support/captured-log.ts";
import { journalFiles, openTestJournal } from "../support/journal.ts";
import { ask, charge, everything, monthly, openTestLedger, settlement, spend, usedOf } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const start = Date.parse("2026-11-22T04:00:00Z");
const dayMs = 86_400_000;

describe("after a crash", () => {
  it("every charge is back, settled or not, and nothing is held", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const ledger = await openTestLedger(folder, clock);
    await spend(ledger);
    const open = ledger.reserve(ask({ upperBound: charge(1, 100, 200) }));
    await open.commit(charge(1, 10, 20));
    ledger.reserve(ask());
    const again = await openTestLedger(folder, clock);
    expect(usedOf(again, everything)).toEqual([2, 80, 80, 143]);
    expect(again.buckets("alice", everything).map(({ reserved }) => reserved)).toEqual([0, 0, 0, 0]);
  });

  it("a charge counts in the period in which it was made", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const ledger = await openTestLedger(folder, clock);
    await spend(ledger);
    clock.advance(dayMs);
    expect(usedOf(await openTestLedger(folder, clock), everything)).toEqual([1, 0, 0, 123]);
  });

  it("a settle that came after the reset still touches only the old period", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const ledger = await openTestLedger(folder, clock);
    const hold = ledger.reserve(ask());
    await hold.commit(charge(1, 10, 20));
    clock.advance(dayMs);
    await spend(ledger);
    await hold.settle(settlement(charge(0), "upstream_failed"));
    expect(usedOf(ledger, everything)).toEqual([1, 70, 70, 123]);
    expect(usedOf(await openTestLedger(folder, clock), everything)).toEqual([1, 70, 70, 123]);
  });

  it("the torn end of the journal is cut off with a line in the log", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    await spend(await openTestLedger(folder, clock));
    const [file = ""] = journalFiles(folder);
    writeFileSync(file, readFileSync(file).subarray(0, -5));
    const log = createCapturedLog();
    expect(usedOf(await openTestLedger(folder, clock, { log }), everything)).toEqual([1, 10, 10, 20]);
    expect(log.lines).toEqual([expect.objectContaining({ level: "warn", facts: expect.objectContaining({ file }) })]);
  });

  it("a journal record that is sound but makes no sense stops the start", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const ledger = await openTestLedger(folder, clock);
    await ledger.close();
    (await openTestJournal(folder)).journal.append('["charge",1,"../x","id","m",1,0,0,"CNY"]');
    await expect(openTestLedger(folder, clock)).rejects.toThrow(/damaged at byte \d+: record 1 makes no sense/);
  });
});

describe("a changed reset day or time zone", () => {
  it("moves the end of the running period and keeps what was used in it", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const before = await openTestLedger(folder, clock);
    await spend(before);
    await before.close();
    const quota = { monthly_reset_day: 25 };
    for (let restart = 0; restart < 2; restart++) {
      const after = await openTestLedger(folder, clock, { quota });
      expect(after.buckets("alice", [monthly(500)])).toMatchObject([
        { used: 1, resetAt: Date.parse("2026-11-24T16:00:00Z") },
      ]);
    }
    const inUtc = await openTestLedger(folder, clock, { quota: { timezone: "UTC", monthly_reset_day: 25 } });
    expect(inUtc.buckets("alice", [monthly(500)])).toMatchObject([
      { used: 1, resetAt: Date.parse("2026-11-25T00:00:00Z") },
    ]);
  });

  it("is on disk before charges are made by it, so that a crash comes to the same sums", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const before = await openTestLedger(folder, clock);
    await spend(before);
    await before.close();
    const quota = { monthly_reset_day: 20 };
    const after = await openTestLedger(folder, clock, { quota });
    // Past the end that the period had before the change.
    clock.advance(10 * dayMs);
    await spend(after);
    expect(usedOf(after)).toEqual([2]);
    expect(usedOf(await openTestLedger(folder, clock, { quota }))).toEqual([2]);
  });

  it("does not bring back a period that is over", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const before = await openTestLedger(folder, clock);
    await spend(before);
    await before.close();
    clock.advance(10 * dayMs);
    expect(usedOf(await openTestLedger(folder, clock, { quota: { monthly_reset_day: 20 } }))).toEqual([0]);
  });
});
