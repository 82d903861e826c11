import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { runJournalCli } from "../../src/cli/journal-commands.ts";
import type { MemoryLedger } from "../../src/quota/memory-ledger.ts";
import { runCli } from "../support/cli.ts";
import { createFaultyFiles } from "../support/faulty-files.ts";
import { journalFiles } from "../support/journal.ts";
import { everything, openTestLedger, spend, usedOf } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const clock = createManualClock(Date.UTC(2026, 10, 22, 4));
const nothing = { requests: 0, tokens: 0, cost: 0, currency: "CNY" };
/** Two records to a file. */
const storage = { segment_bytes: 250 };
const open = (folder: string): Promise<MemoryLedger> => openTestLedger(folder, clock, { storage });

/** What is on disk now, as kill -9 leaves it. */
function killed(folder: string): string {
  const copy = tempDir();
  cpSync(folder, copy, { recursive: true });
  return copy;
}

async function journalCli(users: string, ...argv: string[]) {
  return runCli(runJournalCli, [...argv, "--users", users], "/");
}

describe("D7: journal files that are missing", () => {
  it.each([
    ["the oldest", [0]],
    ["the two oldest", [0, 1]],
    ["all but the newest", [0, 1, 2]],
    ["one in the middle", [1]],
  ])("%s, before there is a snapshot, stop the start, which names the next file", async (_, gone) => {
    const live = tempDir();
    const ledger = await open(live);
    for (const user of ["alice", "bob", "alice", "alice"]) await spend(ledger, user);
    const users = killed(live);
    const files = journalFiles(users);
    for (const index of gone) rmSync(files[index] ?? "");
    const next = files[(gone.at(-1) ?? 0) + 1] ?? "";
    await expect(open(users)).rejects.toThrow(`${next}: damaged at byte 0: records`);
    expect(await journalCli(users, "verify")).toMatchObject({ code: 1, err: expect.stringContaining(next) });

    // A person may decide to go on without.
    const { out } = await journalCli(users, "repair", "--yes");
    expect(out).toMatch(/records \d to \d are missing before this file/);
    const kept = 4 - gone.length;
    const again = await open(users);
    const used = ["alice", "bob"].map((user) => usedOf(again, everything, user)[0] ?? 0);
    expect(used.reduce((sum, requests) => sum + requests, 0)).toBe(kept);
  });

  it("may be those that snapshots cover, and no others", async () => {
    const folder = tempDir();
    const first = await open(folder);
    await spend(first);
    await first.close();
    const second = await open(folder);
    for (let i = 0; i < 3; i++) await spend(second, "bob");
    const files = journalFiles(killed(folder));
    const users = killed(folder);
    const name = (file: string): string => file.slice(-24);
    // The first run's file is covered by its snapshots.
    rmSync(join(users, "journal", name(files[0] ?? "")));
    expect(usedOf(await open(killed(users)), everything, "bob")).toEqual([3, 210, 210, 369]);
    rmSync(join(users, "journal", name(files[1] ?? "")));
    await expect(open(users)).rejects.toThrow(`${name(files[2] ?? "")}: damaged`);
  });

  it("are never suspected where none is: whatever was closed, killed or refused before", async () => {
    const step = fc.constantFrom("spend", "spend", "other", "close", "kill", "full");
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 14 }), async (steps) => {
        let folder = tempDir();
        const ops = createFaultyFiles();
        const reopen = (): Promise<MemoryLedger> => openTestLedger(folder, clock, { storage, ops });
        let ledger = await reopen();
        let spent = 0;
        for (const what of steps) {
          if (what === "spend") {
            await spend(ledger);
            spent++;
          } else if (what === "other") await spend(ledger, "bob");
          else if (what === "full") {
            // Refused, and then the probe is written, for nothing that is charged.
            ops.fail("write", "ENOSPC");
            await expect(spend(ledger)).rejects.toThrow();
            clock.advance(1000);
            await ledger.reserve({ user: "bob", limits: [], requestId: "r", model: "m", upperBound: nothing }).settle({
              ...{ outcome: "upstream_failed", charge: nothing, estimated: false, price: "" },
              usage: { input: 0, cached: 0, output: 0, reasoning: 0 },
            });
          } else {
            if (what === "close") await ledger.close();
            else folder = killed(folder);
            ledger = await reopen();
          }
        }
        folder = killed(folder);
        expect(usedOf(await reopen(), everything)[0]).toBe(spent);
      }),
      { numRuns: 40 },
    );
  });
});
