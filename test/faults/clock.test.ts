import { fc } from "../support/fast-check.ts";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { bringBackQuotas } from "../../src/quota/memory/bring-back.ts";
import type { QuotaLimit } from "../../src/quota/ledger.ts";
import type { MemoryLedger } from "../../src/quota/memory/memory-ledger.ts";
import { runQuotaCli } from "../../src/cli/quota-commands.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { readAudits } from "../support/admin-api.ts";
import { useBehaviourLog } from "../support/behaviour-log.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { runCli } from "../support/cli.ts";
import { ask, charge, everything, monthly, openTestLedger, settlement, spend, usedOf } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { alicePassword, startProxy, userFile } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

/** Noon in Shanghai. */
const noon = Date.parse("2026-11-22T04:00:00Z");
const dayMs = 86_400_000;
const yearMs = 365 * dayMs;
const allDays = { from: "2000-01-01", to: "2100-01-01" };
const ofKey: QuotaLimit = { ...monthly(500), apiKey: "k" };

const resetsOf = (ledger: MemoryLedger): (number | null)[] =>
  ledger.buckets("alice", [...everything, ofKey]).map(({ resetAt }) => resetAt);

describe("D6: charges at the time of a machine that has lost it", () => {
  it.each([
    ["when it begins", 0],
    ["soon after", 10_000],
    ["later in that month", 1.2 * dayMs],
  ])("1970, %s, are there after the next start, and when the clock is right", async (_, at) => {
    const folder = tempDir();
    const clock = createManualClock(at);
    const options = { quota: { timezone: "UTC" } };
    const first = await openTestLedger(folder, clock, options);
    await spend(first);
    await first.close();
    const path = join(folder, "alice.quota.toml");
    const text = readFileSync(path, "utf8");
    expect(text).toContain('start = "1970-01-01T00:00:00.000Z"');
    // As earlier versions have written it.
    for (const file of [text, text.replaceAll(/^(\[\w+\]\n)start = "1970-01-01T00:00:00.000Z"\n/gm, "$1")]) {
      writeFileSync(path, file);
      const again = await openTestLedger(folder, clock, options);
      expect(again.problems()).toEqual([]);
      expect(usedOf(again, everything)).toEqual([1, 70, 70, 123]);
      await again.close();
    }
    clock.advance(noon);
    const right = await openTestLedger(folder, clock, options);
    await spend(right);
    expect(usedOf(right, everything)).toEqual([1, 70, 70, 246]);
    await right.close();
  });

  it("and by a clock beyond the year 9999, which is taken for its beginning, so that all dates have a form", () => {
    vi.spyOn(Date, "now").mockReturnValue(Date.parse("9999-12-31T23:59:59Z"));
    onTestFinished(() => {
      vi.restoreAllMocks();
    });
    expect(new Date(systemClock.now()).toISOString()).toBe("9999-01-01T00:00:00.000Z");
  });
});

describe("D6: looks while the clock is a year ahead", () => {
  it.each<[string, (ledger: MemoryLedger) => unknown]>([
    ["at the quota", resetsOf],
    ["at that of a key", (ledger) => ledger.buckets("alice", [ofKey])],
    [
      "by a request that comes to nothing",
      (ledger) =>
        ledger.reserve(ask({ apiKey: "k", limits: [ofKey] })).settle(settlement(charge(0), "upstream_failed")),
    ],
  ])("%s leave no trace, in memory or on disk", async (_, look) => {
    const folder = tempDir();
    const clock = createManualClock(noon);
    const first = await openTestLedger(folder, clock);
    await spend(first);
    const right = resetsOf(first);
    await first.close();
    const before = readFileSync(join(folder, "alice.quota.toml"), "utf8");

    clock.advance(yearMs);
    const ahead = await openTestLedger(folder, clock);
    await look(ahead);
    clock.advance(-yearMs);
    expect(resetsOf(ahead)).toEqual(right);
    expect(usedOf(ahead, everything)).toEqual([1, 70, 70, 123]);
    await ahead.close();
    expect(readFileSync(join(folder, "alice.quota.toml"), "utf8")).toBe(before);

    const again = await openTestLedger(folder, clock);
    await spend(again);
    expect(usedOf(again, everything)).toEqual([2, 140, 140, 246]);
    expect(resetsOf(again)).toEqual(right);
  });

  it("change nothing of what charges come to, whenever and however often they come", async () => {
    const step = fc.record({
      what: fc.constantFrom("look", "spend"),
      gapMs: fc.integer({ min: 0, max: 20 * 3_600_000 }),
      aheadMs: fc.integer({ min: -2 * yearMs, max: 2 * yearMs }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
        const run = async (looks: boolean): Promise<string> => {
          const folder = tempDir();
          const clock = createManualClock(noon);
          const ledger = await openTestLedger(folder, clock);
          for (const { what, gapMs, aheadMs } of steps) {
            clock.advance(gapMs);
            if (what === "spend") await spend(ledger);
            else if (looks) {
              clock.advance(aheadMs);
              resetsOf(ledger);
              clock.advance(-aheadMs);
            }
          }
          const figures = JSON.stringify([usedOf(ledger, everything), resetsOf(ledger)]);
          await ledger.close();
          const files = readdirSync(folder).filter((name) => name.endsWith(".quota.toml"));
          return figures + files.map((name) => readFileSync(join(folder, name), "utf8")).join("");
        };
        expect(await run(true)).toBe(await run(false));
      }),
      { numRuns: 25 },
    );
  });
});

describe("D6: charges while the clock is ahead", () => {
  it("are told of at the start, and can be brought back: all that was used counts now", async () => {
    const folder = tempDir();
    const clock = createManualClock(noon);
    const right = await openTestLedger(folder, clock);
    await spend(right);
    await spend(right, "bob");
    const resets = resetsOf(right);
    await right.close();
    for (const days of [0, 1, 2]) {
      clock.advance(yearMs + days * dayMs);
      const ahead = await openTestLedger(folder, clock);
      await spend(ahead);
      await ahead.close();
      clock.advance(-yearMs - days * dayMs);
    }

    const log = createCapturedLog();
    const held = await openTestLedger(folder, clock, { log });
    expect(log.lines.find(({ facts }) => facts.event === "quota_ahead")).toMatchObject({
      level: "warn",
      facts: { users: ["alice"], count: 1 },
    });
    expect(resetsOf(held).at(1)).toBeGreaterThan(noon + yearMs);
    await held.close();

    const options = {
      usersDir: folder,
      clock,
      log,
      quota: { timezone: "Asia/Shanghai", monthly_reset_day: 1 },
      usage: { keep_days: 90 },
      storage: { durability: "interval", sync_interval_ms: 50, segment_bytes: 1 << 20, snapshot_interval_seconds: 5 },
    } as const;
    expect(await bringBackQuotas(options)).toEqual(["alice"]);
    expect(await bringBackQuotas(options)).toEqual([]);

    const again = await openTestLedger(folder, clock);
    expect(resetsOf(again)).toEqual(resets);
    await spend(again);
    // What was used on the last of the three days, in the periods that were running then, and now.
    const [requests = 0] = usedOf(again, [monthly(500)]);
    expect(requests).toBeGreaterThanOrEqual(2);
    expect(usedOf(again, [{ metric: "requests", per: "total", max: 9 }])).toEqual([5]);
    const mine = await again.usage({ user: "alice", ...allDays });
    expect(mine.reduce((sum, row) => sum + row.requests, 0)).toBe(5);
    expect(mine.find(({ day }) => day === "2026-11-22")?.requests).toBeGreaterThanOrEqual(3);
    // The totals are those of all users, day by day.
    const bobs = await again.usage({ user: "bob", ...allDays });
    const totals = await again.usage(allDays);
    const sums = (rows: typeof totals, day: string): number =>
      rows.filter((row) => row.day === day).reduce((sum, row) => sum + row.requests, 0);
    for (const { day } of totals) expect(sums(totals, day)).toBe(sums([...mine, ...bobs], day));
    clock.advance(dayMs);
    expect(usedOf(again, [{ metric: "requests", per: "day", max: 9 }])).toEqual([0]);
    await again.close();
  });

  it("are brought back by a command, which the audit log has", async () => {
    const clock = createManualClock(Date.now() + yearMs);
    const proxy = await startProxy({ clock, users: { alice: userFile("alice", alicePassword) } });
    onTestFinished(() => proxy.dispose());
    await proxy.services.ledger.adjust("alice", charge(1), { reason: "", by: "test" });
    await proxy.stop();
    writeFileSync(join(proxy.folder, "config.toml"), "");
    const run = (...argv: string[]) => runCli(runQuotaCli, argv, proxy.folder);
    expect(await run("bring-back", "bob")).toMatchObject({ code: 0, out: "no period begins in the future" });
    expect(await run("bring-back")).toMatchObject({ code: 0, out: "alice: brought back", err: "" });
    expect((await run("show", "alice")).out).toMatch(/1 of \d+ used/);
    expect(await readAudits(proxy.folder)).toMatchObject([{ action: "quota.brought_back", user: "alice" }]);
  });

  it("delete no usage, though more days have passed than are kept", async () => {
    const folder = tempDir();
    const clock = createManualClock(noon);
    const days = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        const ledger = await openTestLedger(folder, clock, { keepDays: 20 });
        await spend(ledger);
        await ledger.close();
        clock.advance(dayMs);
      }
    };
    await days(6);
    clock.advance(yearMs);
    await days(5);
    clock.advance(-yearMs - 5 * dayMs);
    const ledger = await openTestLedger(folder, clock, { keepDays: 20 });
    for (const user of ["alice", undefined]) {
      const rows = await ledger.usage({ user, from: "2026-11-01", to: "2026-12-31" });
      expect(rows.map(({ day }) => day)).toEqual([22, 23, 24, 25, 26, 27].map((day) => `2026-11-${day}`));
    }
  });
});

describe("D6: logs while the clock is ahead", () => {
  const { state, file, start } = useBehaviourLog();
  const days = ["2026-10-25", "2026-11-10", "2026-11-21"];

  function layOut(): void {
    for (const folder of [file("alice"), join(state.root, "audit")]) {
      mkdirSync(folder, { recursive: true });
      for (const day of days) writeFileSync(join(folder, `${day}.jsonl`), "x\n");
    }
  }

  /** Starts and stops, which waits for old files to be looked for. Returns what is left of them. */
  async function sweep(): Promise<string[][]> {
    const behaviour = start();
    await behaviour.close();
    const left = [file("alice"), join(state.root, "audit")].map((folder) => readdirSync(folder).sort());
    return left;
  }

  const all = days.map((day) => `${day}.jsonl`);

  it.each([60, 365, 3650])(
    "of %i days are all kept, at any number of starts, also where lines are written",
    async (aheadDays) => {
      layOut();
      state.clock.advance(aheadDays * dayMs);
      for (let i = 0; i < 9; i++) {
        expect(await sweep()).toEqual([all, all]);
      }
      const today = new Date(state.clock.now()).toISOString().slice(0, 10);
      writeFileSync(file(`alice/${today}.jsonl`), "x\n");
      expect(await sweep()).toEqual([[...all, `${today}.jsonl`], all]);
      expect(state.log.lines.some(({ facts }) => facts.event === "date_doubted")).toBe(true);

      // And go when they are due by the right one.
      state.clock.advance(-aheadDays * dayMs);
      expect(await sweep()).toEqual([[...all, `${today}.jsonl`], all]);
      state.clock.advance(5 * dayMs);
      expect((await sweep())[0]).toEqual([...all.slice(1), `${today}.jsonl`]);
    },
  );

  it("while it runs are all kept", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    try {
      layOut();
      const behaviour = start();
      state.clock.advance(yearMs);
      vi.advanceTimersByTime(dayMs);
      await behaviour.close();
      expect(readdirSync(file("alice"))).toEqual(all);
    } finally {
      vi.useRealTimers();
    }
  });

  it("go in the end where the date proves right: nobody was there for a while", async () => {
    layOut();
    for (let day = 0; day < 7; day++) {
      state.clock.advance(day === 0 ? 100 * dayMs : dayMs);
      expect((await sweep())[0]).toEqual(all);
    }
    state.clock.advance(dayMs);
    expect((await sweep())[0]).toEqual([]);
  });
});
