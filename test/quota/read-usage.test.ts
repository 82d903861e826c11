import { cpSync, existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Log } from "../../src/lib/log.ts";
import { readUsage } from "../../src/quota/memory/read-usage.ts";
import { createPeriods } from "../../src/quota/periods.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { openTestLedger, spend } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const start = Date.parse("2026-11-22T04:00:00Z");
const periodAt = createPeriods({ timezone: "Asia/Shanghai", monthlyResetDay: 1 });
/** Each record has a journal file of its own, so that all but the last one can go. */
const storage = { segment_bytes: 1 };
/** Sorts behind the 32 users whose files are read with alice's. */
const lastFile = "zoe.quota.toml";

/** Makes a folder what another one is, as a server leaves its own after a round of snapshots. */
function become(folder: string, later: string): void {
  cpSync(later, folder, { recursive: true });
  for (const file of readdirSync(join(folder, "journal")))
    if (!existsSync(join(later, "journal", file))) rmSync(join(folder, "journal", file));
}

/** Calls `act` once, when the last user file is read and cannot be used. */
function atLastFile(act: () => void): Log {
  const log = createCapturedLog();
  let isOver = false;
  return {
    ...log,
    error(facts: object, message: string) {
      log.error(facts, message);
      if (isOver || !("file" in facts) || facts.file !== lastFile) return;
      isOver = true;
      act();
    },
  };
}

async function requestsOf(folder: string, log: Log): Promise<number> {
  const { usage } = await readUsage({ usersDir: folder, periodAt, keepDays: 90, log });
  const rows = await usage({ user: "alice", from: "2026-11-22", to: "2026-11-22" });
  return rows.reduce((sum, { requests }) => sum + requests, 0);
}

describe("the usage that is read beside a running server", () => {
  it.each([
    ["while it replaces snapshots", 3],
    ["while it writes the first ones", 0],
  ])("is whole %s, and removes what they cover from the journal", async (_when, before) => {
    const [folder, earlier] = [tempDir(), tempDir()];
    const clock = createManualClock(start);
    if (before > 0) {
      const ledger = await openTestLedger(folder, clock, { storage });
      for (let n = 0; n < before; n++) await spend(ledger);
      for (let n = 0; n < 40; n++) await spend(ledger, `bob${n}`);
      await ledger.close();
    }
    const ledger = await openTestLedger(folder, clock, { storage });
    for (let n = 0; n < 4; n++) await spend(ledger);
    cpSync(folder, earlier, { recursive: true });
    await ledger.close();
    for (const each of [folder, earlier]) writeFileSync(join(each, lastFile), "no snapshot");

    const log = atLastFile(() => {
      become(earlier, folder);
    });
    expect(await requestsOf(earlier, log)).toBe(before + 4);
  });
});
