import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { runJournalCli } from "../../src/cli/journal-commands.ts";
import type { CommandIo } from "../../src/cli/this-process.ts";
import type { Clock } from "../../src/lib/clock.ts";
import type { FileOps } from "../../src/lib/files/file-ops.ts";
import type { MemoryLedger, MemoryLedgerOptions } from "../../src/quota/memory/memory-ledger.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { runCli } from "../support/cli.ts";
import { createFaultyFiles } from "../support/faulty-files.ts";
import { journalFiles } from "../support/journal.ts";
import { everything, openTestLedger, spend, usedOf } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { eventually } from "../support/eventually.ts";
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
              outcome: "upstream_failed",
              charge: nothing,
              estimated: false,
              price: "",
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

describe("O2: storage.journal_archive_days", () => {
  const day = 86_400_000;
  /** The days that a test lets pass are in the same month: a limit of a month counts all of them. */
  const start = Date.UTC(2026, 9, 5);
  const archived = { ...storage, journal_archive_days: 3 };
  /** The files, compressed or not, by the names that they have before. */
  const archiveOf = (folder: string): string[] => {
    const names = readdirSync(join(folder, "journal", "archive")).filter((name) => /\.journal(\.gz)?$/.test(name));
    return [...new Set(names.map((name) => join(folder, "journal", "archive", name.replace(".gz", ""))))];
  };
  const asItIs = (file: string): string => (existsSync(file) ? file : `${file}.gz`);

  /** A run of the proxy with three requests. What it archives is dated by `now` instead of the machine's time. */
  async function run(folder: string, now: Clock, of: Partial<MemoryLedgerOptions["storage"]> = archived) {
    const before = existsSync(join(folder, "journal", "archive")) ? archiveOf(folder) : [];
    const ledger = await openTestLedger(folder, now, { storage: of });
    for (let n = 0; n < 3; n++) await spend(ledger);
    await ledger.close();
    dateBy(
      now,
      archiveOf(folder).filter((file) => !before.includes(file)),
    );
  }

  function dateBy(now: Clock, files: readonly string[]) {
    for (const file of files) utimesSync(asItIs(file), now.now() / 1000, now.now() / 1000);
  }

  async function dumped(folder: string, ...argv: string[]) {
    const { code, out, err } = await journalCli(folder, "dump", ...argv);
    const lines = out.split("\n").filter((line) => line !== "");
    return { code, err, seqs: lines.map((line) => (JSON.parse(line) as { seq: number }).seq) };
  }

  it("keeps the files that snapshots cover for so long, and dump shows all of it", async () => {
    const folder = tempDir();
    const now = createManualClock(start);
    for (let i = 0; i < 3; i++) {
      await run(folder, now);
      now.advance(day);
    }
    const all = Array.from({ length: 18 }, (_, index) => index + 1);
    expect(await dumped(folder, "--archived")).toEqual({ code: 0, err: "", seqs: all });
    expect((await dumped(folder)).seqs.length).toBeLessThan(18);
    const ledger = await openTestLedger(folder, now, { storage: archived });
    expect(usedOf(ledger, everything)[0]).toBe(9);
    await ledger.close();

    const old = archiveOf(folder);
    expect(old.length).toBeGreaterThan(0);
    dateBy(now, old);
    now.advance(4 * day);
    await openTestLedger(folder, now, { storage: archived });
    expect(archiveOf(folder).filter((file) => old.includes(file))).toEqual([]);
  });

  it("says which records are missing, and prints what a damaged file leaves", async () => {
    const folder = tempDir();
    const now = createManualClock(start);
    await run(folder, now);
    await run(folder, now);
    const [first = "", second = "", third = ""] = archiveOf(folder).map(asItIs);
    rmSync(second);
    const [unpack, pack] = third.endsWith(".gz") ? [gunzipSync, gzipSync] : [Buffer.from, Buffer.from];
    writeFileSync(third, pack(unpack(readFileSync(third)).toString().replace("alice", "alicf")));
    const { code, err, seqs } = await dumped(folder, "--archived");
    expect(code).toBe(1);
    expect(err).toMatch(new RegExp(`${third}: damaged at byte \\d+`));
    expect(err).toMatch(/records 3 to \d are not in the archive/);
    expect(seqs).toEqual(expect.arrayContaining([1, 2, 11, 12]));
    expect(first).toContain("0000000000000001.journal");
  });

  it("is dumped without a gap while a server moves files there", async () => {
    const folder = tempDir();
    const now = createManualClock(start);
    await run(folder, now);
    const ledger = await openTestLedger(folder, now, { storage: { ...archived, snapshot_interval_seconds: 1e6 } });
    for (let n = 0; n < 3; n++) await spend(ledger);
    const seqs: number[] = [];
    const outPieces = async (pieces: AsyncIterable<string>): Promise<void> => {
      for await (const piece of pieces) {
        const lines = piece.split("\n").filter((line) => line !== "");
        seqs.push(...lines.map((line) => (JSON.parse(line) as { seq: number }).seq));
        // What the server does after its snapshots, while the archive is being read.
        const journal = join(folder, "journal");
        const moved = readdirSync(journal).find((name) => name.endsWith("0005.journal"));
        if (moved !== undefined) renameSync(join(journal, moved), join(journal, "archive", moved));
      }
    };
    const said: string[] = [];
    const io = { outPieces, err: (line: string) => said.push(line), env: {}, cwd: "/" } as unknown as CommandIo;
    const code = await runJournalCli(["dump", "--archived", "--users", folder], io);
    expect({ code, said }).toEqual({ code: 0, said: [] });
    expect(seqs).toEqual(Array.from({ length: 12 }, (_, index) => index + 1));
    await ledger.close();
  });

  it("keeps all of them while a clock is a year ahead", async () => {
    const folder = tempDir();
    const now = createManualClock(start);
    await run(folder, now);
    const files = archiveOf(folder);
    expect(files.length).toBeGreaterThan(1);
    now.advance(365 * day);
    for (let i = 0; i < 3; i++) await (await openTestLedger(folder, now, { storage: archived })).close();
    expect(archiveOf(folder)).toEqual(expect.arrayContaining(files));
  });

  it("removes no file because a clock was behind when it was written", async () => {
    const folder = tempDir();
    const now = createManualClock(start);
    await run(folder, now);
    await run(folder, createManualClock(0));
    const files = archiveOf(folder);
    now.advance(day);
    await run(folder, now);
    expect(archiveOf(folder)).toEqual(expect.arrayContaining(files));
  });

  it("leaves files in the journal, and loses nothing, where a full disk lets none be moved", async () => {
    const folder = tempDir();
    const now = createManualClock(start);
    const ops = createFaultyFiles();
    const full = { ...ops, rename: moveFails(ops) };
    const ledger = await openTestLedger(folder, now, { storage: archived, ops: full });
    for (let n = 0; n < 3; n++) await spend(ledger);
    await ledger.close();
    expect(archiveOf(folder)).toEqual([]);
    expect((await dumped(folder, "--archived")).seqs).toEqual([1, 2, 3, 4, 5, 6]);

    // There is room again: the next round moves them.
    await run(folder, now);
    expect(archiveOf(folder).length).toBeGreaterThan(1);
    expect((await dumped(folder, "--archived")).seqs).toHaveLength(12);
  });

  it("starts, and counts, where not even the archive's folder can be made", async () => {
    const folder = tempDir();
    mkdirSync(join(folder, "journal"));
    writeFileSync(join(folder, "journal", "archive"), "");
    const log = createCapturedLog();
    const ledger = await openTestLedger(folder, clock, { storage: archived, log });
    for (let n = 0; n < 3; n++) await spend(ledger);
    await ledger.close();
    expect(JSON.stringify(log.lines)).toContain("could not be removed from the archive");
    expect(usedOf(await openTestLedger(folder, clock, { storage: archived }), everything)[0]).toBe(3);
  });

  it("compresses them, with the time of their last record, and leaves one plain that can't be", async () => {
    const folder = tempDir();
    const now = createManualClock(start);
    await run(folder, now, { ...archived, journal_archive_days: 30 });
    const plain = archiveOf(folder).map((file) => ({ file, at: statSync(asItIs(file)).mtimeMs }));
    // Where the folder of this name is, no file can be made.
    const stuck = plain[0]?.file ?? "";
    if (!existsSync(stuck)) writeFileSync(stuck, gunzipSync(readFileSync(`${stuck}.gz`)));
    rmSync(`${stuck}.gz.part`, { force: true });
    mkdirSync(`${stuck}.gz.part`);
    const log = createCapturedLog();
    const first = await openTestLedger(folder, now, { storage: archived, log });
    await eventually(() => {
      expect(JSON.stringify(log.lines)).toContain("could not be compressed");
    });
    await first.close();
    rmSync(`${stuck}.gz.part`, { recursive: true });
    const second = await openTestLedger(folder, now, { storage: archived });
    await eventually(() => {
      expect(plain.filter(({ file }) => existsSync(file))).toEqual([]);
    });
    await second.close();
    for (const { file, at } of plain.slice(1)) expect(statSync(`${file}.gz`).mtimeMs).toBeCloseTo(at, 0);
    expect((await dumped(folder, "--archived")).seqs).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("of 0 removes them at once, and leaves the archive as it is", async () => {
    const folder = tempDir();
    const now = createManualClock(start);
    await run(folder, now);
    const files = archiveOf(folder);
    await run(folder, now, storage);
    expect(archiveOf(folder)).toEqual(files);
    expect(journalFiles(folder).filter((file) => file.endsWith(".journal"))).toHaveLength(1);
  });
});

/** Moving a file into the archive fails; all else works. */
function moveFails(ops: FileOps): FileOps["rename"] {
  return (from, to) =>
    to.includes("archive")
      ? Promise.reject(Object.assign(new Error("full"), { code: "ENOSPC" }))
      : ops.rename(from, to);
}
