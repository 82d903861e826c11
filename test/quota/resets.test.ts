import { describe, expect, it } from "vitest";
import { AppError } from "../../src/errors.ts";
import type { QuotaLimit } from "../../src/quota/ledger.ts";
import { ask, charge, monthly, openTestLedger, settlement, usedOf } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const now = Date.parse("2026-11-22T04:00:00Z");
const dayMs = 86_400_000;

describe("resets", () => {
  it("let an exhausted user go on after the period, seen by reads too", async () => {
    const clock = createManualClock(now);
    const ledger = await openTestLedger(tempDir(), clock);
    const limits = [monthly(1)];
    await ledger.reserve(ask({ limits })).commit(charge(1));
    expect(() => ledger.reserve(ask({ limits }))).toThrow(AppError);
    clock.advance(9 * dayMs);
    expect(ledger.buckets("alice", limits)).toMatchObject([
      { used: 0, remaining: 1, resetAt: Date.parse("2026-12-31T16:00:00Z") },
    ]);
    await ledger.reserve(ask({ limits })).commit(charge(1));
    expect(usedOf(ledger, limits)).toEqual([1]);
  });

  it("do not come twice when the clock steps back", async () => {
    const clock = createManualClock(Date.parse("2026-11-30T15:59:59Z"));
    const ledger = await openTestLedger(tempDir(), clock);
    await ledger.reserve(ask()).commit(charge(1));
    clock.advance(2_000);
    await ledger.reserve(ask()).commit(charge(1));
    expect(usedOf(ledger)).toEqual([1]);
    clock.advance(-2_000);
    expect(usedOf(ledger)).toEqual([1]);
    const hold = ledger.reserve(ask());
    await hold.commit(charge(1));
    clock.advance(2_000);
    expect(usedOf(ledger)).toEqual([2]);
    await hold.settle(settlement(charge(0), "upstream_failed"));
    expect(usedOf(ledger)).toEqual([1]);
  });

  it("leave the new period alone when an old charge is settled", async () => {
    const clock = createManualClock(now);
    const limits: QuotaLimit[] = [
      { metric: "tokens", per: "day", max: 1000 },
      { metric: "tokens", per: "total", max: 1000 },
    ];
    const ledger = await openTestLedger(tempDir(), clock);
    const old = ledger.reserve(ask({ limits, upperBound: charge(1, 300) }));
    await old.commit(charge(1, 100));
    clock.advance(dayMs);
    const next = ledger.reserve(ask({ limits, upperBound: charge(1, 50) }));
    await next.commit(charge(1, 50));
    expect(usedOf(ledger, limits)).toEqual([50, 150]);
    await old.settle(settlement(charge(0), "upstream_failed"));
    expect(usedOf(ledger, limits)).toEqual([50, 50]);
    expect(ledger.buckets("alice", limits)).toMatchObject([{ reserved: 0 }, { reserved: 0 }]);
  });

  it("charge in the new period what was reserved in the old one", async () => {
    const clock = createManualClock(now);
    const ledger = await openTestLedger(tempDir(), clock);
    const hold = ledger.reserve(ask());
    clock.advance(9 * dayMs);
    expect(ledger.buckets("alice", [monthly(1)])).toMatchObject([{ used: 0, reserved: 1, remaining: 0 }]);
    await hold.commit(charge(1));
    expect(usedOf(ledger)).toEqual([1]);
  });

  it("by hand forget charges made before, also where the clock has stepped back since, and after a restart", async () => {
    const clock = createManualClock(now);
    const folder = tempDir();
    const limits: QuotaLimit[] = [
      { metric: "tokens", per: "week", max: 1000 },
      { metric: "tokens", per: "total", max: 1000 },
    ];
    const note = { reason: "because", by: "the test" };
    const ledger = await openTestLedger(folder, clock);
    const hold = ledger.reserve(ask({ limits, upperBound: charge(1, 300) }));
    await hold.commit(charge(1, 100));
    clock.advance(-3_600_000);
    await ledger.reset("alice", "week", note);
    expect(usedOf(ledger, limits)).toEqual([0, 100]);
    await hold.settle(settlement(charge(1, 250)));
    expect(usedOf(ledger, limits)).toEqual([0, 250]);
    await ledger.reserve(ask({ limits })).commit(charge(1, 7));
    expect(usedOf(ledger, limits)).toEqual([7, 257]);
    await ledger.close();
    expect(usedOf(await openTestLedger(folder, clock), limits)).toEqual([7, 257]);
  });

  it("by hand are where they were after a restart, however much of the period is left", async () => {
    const clock = createManualClock(now);
    const folder = tempDir();
    const limit: QuotaLimit = { metric: "tokens", per: "week", max: 1000 };
    const windowsOf = ({ follower }: Awaited<ReturnType<typeof openTestLedger>>) =>
      follower.accounts.get("alice")?.counts.windows.map(({ start, end }) => [start, end]);
    const ledger = await openTestLedger(folder, clock);
    await ledger.reserve(ask({ limits: [limit], upperBound: charge(1, 10) })).commit(charge(1, 10));
    await ledger.reset("alice", "week", { reason: "because", by: "the test" });
    const before = windowsOf(ledger);
    expect(before).toContainEqual([now + 1, expect.any(Number)]);
    await ledger.close();
    expect(windowsOf(await openTestLedger(folder, clock))).toEqual(before);
  });
});
