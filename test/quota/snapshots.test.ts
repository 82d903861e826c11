import { readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createCapturedLog } from "../support/captured-log.ts";
import { eventually } from "../support/eventually.ts";
import { journalFiles } from "../support/journal.ts";
import { everything, openTestLedger, spend, usedOf } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const start = Date.parse("2026-11-22T04:00:00Z");

describe("snapshots", () => {
  it("hold all there is, so that the journal can go", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const ledger = await openTestLedger(folder, clock);
    await spend(ledger);
    await spend(ledger, "bob");
    await ledger.close();
    rmSync(join(folder, "journal"), { recursive: true });
    const again = await openTestLedger(folder, clock);
    expect(usedOf(again, everything)).toEqual([1, 70, 70, 123]);
    expect(usedOf(again, everything, "bob")).toEqual([1, 70, 70, 123]);
    await spend(again);
    // Its record has a number above those that the snapshots cover, or this would be lost.
    expect(usedOf(await openTestLedger(folder, clock), everything)).toEqual([2, 140, 140, 246]);
  });

  it("can be read by people", async () => {
    const folder = tempDir();
    const ledger = await openTestLedger(folder, createManualClock(start));
    await spend(ledger);
    await ledger.close();
    expect(readFileSync(join(folder, "alice.quota.toml"), "utf8")).toMatchInlineSnapshot(`
      "# Written by the proxy, which overwrites changes. What was used in the running periods; cost in nano-units (1e-9).
      format = 1
      username = "alice"
      covers_seq = 2

      [day]
      start = "2026-11-21T16:00:00.000Z"
      end = "2026-11-22T16:00:00.000Z"
      requests = 1
      tokens = 70

      [day.cost]
      CNY = 123

      [week]
      start = "2026-11-15T16:00:00.000Z"
      end = "2026-11-22T16:00:00.000Z"
      requests = 1
      tokens = 70

      [week.cost]
      CNY = 123

      [month]
      start = "2026-10-31T16:00:00.000Z"
      end = "2026-11-30T16:00:00.000Z"
      requests = 1
      tokens = 70

      [month.cost]
      CNY = 123

      [total]
      requests = 1
      tokens = 70

      [total.cost]
      CNY = 123

      [[history]]
      day = "2026-11-22"
      start = "2026-11-21T16:00:00.000Z"
      end = "2026-11-22T16:00:00.000Z"

      [[history.models]]
      model = "deepseek-chat"
      requests = 1
      tokens = 70
      input = 70

      [history.models.cost]
      CNY = 123

      [history.models.outcomes]
      completed = 1

      "
    `);
  });

  it("do not count twice what the journal still has", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    for (let round = 1; round <= 3; round++) {
      const ledger = await openTestLedger(folder, clock);
      await spend(ledger);
      await ledger.close();
      expect(usedOf(await openTestLedger(folder, clock), everything)).toEqual([
        round,
        70 * round,
        70 * round,
        123 * round,
      ]);
    }
  });

  it("are written while the proxy runs, and shorten the journal", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const storage = { snapshot_interval_seconds: 0.005, segment_bytes: 4096 };
    const ledger = await openTestLedger(folder, clock, { storage });
    for (let i = 0; i < 200; i++) await spend(ledger);
    await eventually(() => {
      expect(ledger.stats().pending).toBe(0);
      expect(journalFiles(folder)).toHaveLength(1);
    });
    expect(usedOf(await openTestLedger(folder, clock), everything)).toEqual([200, 14_000, 14_000, 24_600]);
    await ledger.close();
  });

  it.each([
    ["bad syntax", "username = ", "quota.toml"],
    ["a negative amount", "requests = 1", "requests = -1"],
    ["a fractional amount", "requests = 1", "requests = 1.5"],
    ["an amount beyond safe integers", "requests = 1", "requests = 9007199254740993"],
    ["another user's name", 'username = "alice"', 'username = "bob"'],
    ["no reset", /end = .*\n/, ""],
    ["a later format", "format = 1", "format = 2"],
  ])("with %s stop their user alone and are left alone: used quota never comes back by itself", async (_, from, to) => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const ledger = await openTestLedger(folder, clock);
    await spend(ledger);
    await ledger.close();
    // Only the journal has the second one.
    await spend(await openTestLedger(folder, clock));
    const file = join(folder, "alice.quota.toml");
    const whole = readFileSync(file, "utf8");
    const broken = whole.replace(from, to);
    writeFileSync(file, broken);

    const log = createCapturedLog();
    const storage = { segment_bytes: 4096 };
    const without = await openTestLedger(folder, clock, { log, storage });
    expect(without.problems()).toMatchObject([{ file: "alice.quota.toml" }]);
    expect(log.lines[0]).toMatchObject({ level: "error", facts: { file: "alice.quota.toml" } });
    await expect(spend(without)).rejects.toMatchObject({ code: "storage_unavailable" });
    expect(() => usedOf(without)).toThrow(expect.objectContaining({ code: "storage_unavailable" }));
    for (let i = 0; i < 100; i++) await spend(without, "bob");
    await without.close();
    expect(readFileSync(file, "utf8")).toBe(broken);
    expect(journalFiles(folder).length).toBeGreaterThan(2);

    writeFileSync(file, whole);
    const mended = await openTestLedger(folder, clock, { storage });
    expect(mended.problems()).toEqual([]);
    expect(usedOf(mended, everything)).toEqual([2, 140, 140, 246]);
    expect(usedOf(mended, everything, "bob")).toEqual([100, 7000, 7000, 12_300]);
    await mended.close();
    expect(journalFiles(folder)).toEqual([]);
  });

  it("that are symlinks are not followed", async () => {
    const folder = tempDir();
    writeFileSync(join(folder, "target"), "");
    symlinkSync(join(folder, "target"), join(folder, "alice.quota.toml"));
    const ledger = await openTestLedger(folder, createManualClock(start));
    expect(ledger.problems()).toMatchObject([{ file: "alice.quota.toml" }]);
    await expect(spend(ledger)).rejects.toMatchObject({ code: "storage_unavailable" });
  });

  it("of names that no user can have are passed over, half-written ones removed", async () => {
    const folder = tempDir();
    writeFileSync(join(folder, "Alice.quota.toml"), "");
    writeFileSync(join(folder, ".alice.quota.toml.0123456789abcdef.tmp"), "");
    const log = createCapturedLog();
    await openTestLedger(folder, createManualClock(start), { log });
    expect(log.lines).toMatchObject([{ level: "warn", facts: { file: join(folder, "Alice.quota.toml") } }]);
    expect(readdirSync(folder).sort()).toEqual(["Alice.quota.toml", "journal", "usage"]);
  });
});
