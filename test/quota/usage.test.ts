import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Charge, Settlement, UsageRow } from "../../src/quota/ledger.ts";
import type { MemoryLedger } from "../../src/quota/memory/memory-ledger.ts";
import { ask, charge, openTestLedger, settlement, spend } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

/** Noon in Shanghai. */
const start = Date.parse("2026-11-22T04:00:00Z");
const dayMs = 86_400_000;
const allDays = { from: "2000-01-01", to: "2100-01-01" };

async function one(ledger: MemoryLedger, model: string, first: Charge, last?: Partial<Settlement>): Promise<void> {
  const hold = ledger.reserve(ask({ model, upperBound: charge(9, 9000, 9000) }));
  await hold.commit(first);
  if (last !== undefined) await hold.settle({ ...settlement(first), ...last });
}

function days(rows: readonly UsageRow[]): string[] {
  return rows.map(({ day, requests }) => `${day} ${requests}`);
}

describe("the usage history", () => {
  it("has a row for each day and model, with tokens, cost and outcomes", async () => {
    const ledger = await openTestLedger(tempDir(), createManualClock(start));
    const usage = { input: 50, cached: 30, output: 20, reasoning: 5 };
    await one(ledger, "chat", charge(1, 40, 10), { charge: charge(1, 70, 123), usage });
    await one(ledger, "chat", charge(1, 40, 10), { charge: charge(1, 70, 7, "USD"), usage, outcome: "client_gone" });
    await one(ledger, "reasoner", charge(3, 5), { charge: charge(3, 70), usage, estimated: true });
    const shared = { day: "2026-11-22", key: "", adjusted: null, unsettled: 0 };
    expect(await ledger.usage({ user: "alice", ...allDays })).toEqual([
      {
        ...shared,
        model: "chat",
        requests: 2,
        tokens: 140,
        input: 100,
        cached: 60,
        output: 40,
        reasoning: 10,
        cost: { CNY: 123, USD: 7 },
        outcomes: { completed: 1, client_gone: 1 },
        estimated: 0,
      },
      {
        ...shared,
        model: "reasoner",
        requests: 3,
        tokens: 70,
        input: 50,
        cached: 30,
        output: 20,
        reasoning: 5,
        cost: {},
        outcomes: { completed: 1 },
        estimated: 1,
      },
    ]);
  });

  it("counts the largest charge in full in the place of the first", async () => {
    const ledger = await openTestLedger(tempDir(), createManualClock(start));
    const most = Number.MAX_SAFE_INTEGER;
    await one(ledger, "chat", charge(1, 40, 10), { charge: charge(1, most, most) });
    expect(await ledger.usage({ user: "alice", ...allDays })).toMatchObject([{ tokens: most, cost: { CNY: most } }]);
  });

  it("counts what is charged and not settled as estimated, after a crash too", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    await one(await openTestLedger(folder, clock), "chat", charge(1, 40, 10));
    const row = { requests: 1, tokens: 40, input: 40, cost: { CNY: 10 }, outcomes: {}, estimated: 1, unsettled: 1 };
    const again = await openTestLedger(folder, clock);
    for (const user of ["alice", undefined]) expect(await again.usage({ user, ...allDays })).toMatchObject([row]);
  });

  it("counts what was rolled back by its outcome alone", async () => {
    const ledger = await openTestLedger(tempDir(), createManualClock(start));
    const usage = { input: 50, cached: 30, output: 20, reasoning: 5 };
    const rolledBack = { outcome: "upstream_failed", charge: charge(0), usage, estimated: true } as const;
    await one(ledger, "chat", charge(1, 40, 10), rolledBack);
    const nothing = { requests: 0, tokens: 0, input: 0, output: 0, cost: { CNY: 0 }, estimated: 0, unsettled: 0 };
    expect(await ledger.usage(allDays)).toMatchObject([{ ...nothing, outcomes: { upstream_failed: 1 } }]);
  });

  it("has a charge on the day of its first event, whenever it ends", async () => {
    const clock = createManualClock(start);
    const folder = tempDir();
    const ledger = await openTestLedger(folder, clock);
    const hold = ledger.reserve(ask({ upperBound: charge(1, 100) }));
    await hold.commit(charge(1, 10));
    clock.advance(3 * dayMs);
    await spend(ledger);
    await hold.settle(settlement(charge(1, 100)));
    const expected = [
      { day: "2026-11-22", tokens: 100, unsettled: 0 },
      { day: "2026-11-25", tokens: 70 },
    ];
    expect(await ledger.usage({ user: "alice", ...allDays })).toMatchObject(expected);
    await ledger.close();
    expect(await (await openTestLedger(folder, clock)).usage(allDays)).toMatchObject(expected);
  });

  it("begins a day at midnight in the quota's time zone", async () => {
    const clock = createManualClock(Date.parse("2026-11-22T15:59:59Z"));
    const ledger = await openTestLedger(tempDir(), clock);
    await spend(ledger);
    clock.advance(1000);
    await spend(ledger);
    expect(days(await ledger.usage(allDays))).toEqual(["2026-11-22 1", "2026-11-23 1"]);
    expect(days(await ledger.usage({ user: "alice", from: "2026-11-23", to: "2026-11-23" }))).toEqual(["2026-11-23 1"]);
  });

  it("never goes back to an earlier day after a change of the time zone", async () => {
    const folder = tempDir();
    const clock = createManualClock(Date.parse("2026-11-22T17:00:00Z"));
    const east = await openTestLedger(folder, clock);
    await spend(east);
    await east.close();
    // In UTC it is still the 22nd.
    const west = await openTestLedger(folder, clock, { quota: { timezone: "UTC" } });
    await spend(west);
    clock.advance(dayMs);
    await spend(west);
    for (const user of ["alice", undefined]) {
      expect(days(await west.usage({ user, ...allDays }))).toEqual(["2026-11-23 3"]);
    }
  });

  it("counts models beyond 200 a day together", async () => {
    const ledger = await openTestLedger(tempDir(), createManualClock(start));
    for (let i = 0; i < 210; i++) await one(ledger, `m${i}`, charge(1), { charge: charge(1) });
    const rows = await ledger.usage({ user: "alice", ...allDays });
    expect(rows).toHaveLength(201);
    expect(rows.find(({ model }) => model === "other")).toMatchObject({ requests: 10, outcomes: { completed: 10 } });
  });
});

describe("totals over all users", () => {
  it("are the sums of what each has used", async () => {
    const clock = createManualClock(start);
    const ledger = await openTestLedger(tempDir(), clock);
    for (const user of ["alice", "bob", "alice"]) await spend(ledger, user);
    clock.advance(dayMs);
    await spend(ledger, "bob");
    expect(days(await ledger.usage(allDays))).toEqual(["2026-11-22 3", "2026-11-23 1"]);
    const each: string[] = [];
    for await (const { user, row } of ledger.usageOfAll(allDays)) each.push(`${user} ${row.day} ${row.requests}`);
    expect(each).toEqual(["alice 2026-11-22 2", "bob 2026-11-22 1", "bob 2026-11-23 1"]);
  });

  it.each([
    [
      "missing",
      (file: string) => {
        rmSync(file);
      },
    ],
    [
      "damaged",
      (file: string) => {
        writeFileSync(file, "format = ");
      },
    ],
  ])("are added up anew where their file is %s", async (_, harm) => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const ledger = await openTestLedger(folder, clock);
    await spend(ledger);
    clock.advance(dayMs);
    await spend(ledger, "bob");
    await spend(ledger);
    await ledger.close();
    harm(join(folder, "usage", "_totals.toml"));
    const again = await openTestLedger(folder, clock);
    expect(days(await again.usage(allDays))).toEqual(["2026-11-22 1", "2026-11-23 2"]);
  });
});
