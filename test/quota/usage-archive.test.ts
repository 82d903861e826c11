import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { UsageRow } from "../../src/quota/ledger.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { createFaultyFiles } from "../support/faulty-files.ts";
import { openTestLedger, spend } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

/** Noon in Shanghai. */
const start = Date.parse("2026-11-22T04:00:00Z");
const dayMs = 86_400_000;
const allDays = { from: "2000-01-01", to: "2100-01-01" };

function days(rows: readonly UsageRow[]): string[] {
  return rows.map(({ day, requests }) => `${day} ${requests}`);
}

describe("days that are over", () => {
  it("move to a file of their own, a line for each model", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const first = await openTestLedger(folder, clock);
    await spend(first);
    clock.advance(dayMs);
    await spend(first);
    await first.close();
    const line = JSON.parse(readFileSync(join(folder, "usage", "alice.jsonl"), "utf8")) as object;
    expect(line).toEqual({
      day: "2026-11-22",
      model: "deepseek-chat",
      requests: 1,
      tokens: 70,
      input: 70,
      cost: { CNY: 123 },
      outcomes: { completed: 1 },
      seq: 4,
    });
    expect(readFileSync(join(folder, "alice.quota.toml"), "utf8")).not.toContain('2026-11-22"');
    const again = await openTestLedger(folder, clock);
    for (const user of ["alice", undefined]) {
      expect(days(await again.usage({ user, ...allDays }))).toEqual(["2026-11-22 1", "2026-11-23 1"]);
    }
  });

  it("are forgotten after keep_days", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    for (let day = 0; day < 30; day++) {
      const ledger = await openTestLedger(folder, clock, { keepDays: 5 });
      await spend(ledger);
      await ledger.close();
      clock.advance(dayMs);
    }
    for (const name of ["alice", "_totals"]) {
      const lines = readFileSync(join(folder, "usage", `${name}.jsonl`), "utf8")
        .trim()
        .split("\n");
      expect(lines.length).toBeGreaterThanOrEqual(5);
      expect(lines.length).toBeLessThanOrEqual(8);
    }
  });

  it("stay in memory and in the snapshot until the archive has them", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const ops = createFaultyFiles();
    const log = createCapturedLog();
    const ledger = await openTestLedger(folder, clock, { ops, log });
    await spend(ledger);
    clock.advance(dayMs);
    await spend(ledger);
    ops.fail("write", "ENOSPC", 1, 1e9);
    await ledger.close();
    expect(log.lines[0]).toMatchObject({ level: "warn" });
    const again = await openTestLedger(folder, clock);
    expect(days(await again.usage({ user: "alice", ...allDays }))).toEqual(["2026-11-22 1", "2026-11-23 1"]);
  });

  it("survive half a line in their file", async () => {
    const folder = tempDir();
    const clock = createManualClock(start);
    const log = createCapturedLog();
    for (let day = 0; day < 3; day++) {
      const ledger = await openTestLedger(folder, clock, { log });
      await spend(ledger);
      await ledger.close();
      clock.advance(dayMs);
      const file = join(folder, "usage", "alice.jsonl");
      if (existsSync(file)) appendFileSync(file, '{"day":"2026-1');
    }
    const ledger = await openTestLedger(folder, clock, { log });
    const rows = await ledger.usage({ user: "alice", ...allDays });
    expect(days(rows)).toEqual(["2026-11-22 1", "2026-11-23 1", "2026-11-24 1"]);
    expect(log.lines.at(-1)).toMatchObject({ level: "warn", facts: { lines: [2, 4] } });
  });
});
