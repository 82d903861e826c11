import { appendFileSync, cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { describe, expect, it } from "vitest";
import { runJournalCli } from "../../src/cli/journal-commands.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { acquireLock } from "../../src/lib/files/lock-file.ts";
import { createProcessTable } from "../../src/lib/files/lock-owner.ts";
import { runCli } from "../support/cli.ts";
import { journalFiles } from "../support/journal.ts";
import { everything, openTestLedger, spend, usedOf } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const noon = Date.UTC(2026, 10, 22, 4);

/** A users folder as a killed process leaves it: three charges of alice and one of bob, in files of two records. */
async function useKilled(): Promise<string> {
  const [live, killed] = [tempDir(), tempDir()];
  const ledger = await openTestLedger(live, createManualClock(noon), { storage: { segment_bytes: 250 } });
  for (const user of ["alice", "bob", "alice", "alice"]) await spend(ledger, user);
  cpSync(live, killed, { recursive: true });
  await ledger.close();
  return killed;
}

function journal(users: string, ...argv: string[]) {
  return runCli(runJournalCli, [...argv, "--users", users], "/");
}

function flip(file: string, offset: number): void {
  const bytes = readFileSync(file);
  bytes[offset] = (bytes[offset] ?? 0) ^ 1;
  writeFileSync(file, bytes);
}

/** What a start makes of the folder. */
async function recovered(users: string, user: string): Promise<number[]> {
  const copy = tempDir();
  cpSync(users, copy, { recursive: true });
  const ledger = await openTestLedger(copy, createManualClock(noon));
  try {
    return usedOf(ledger, everything, user);
  } finally {
    await ledger.close();
  }
}

describe("npm run journal -- verify", () => {
  it("says what is in a sound journal", async () => {
    const users = await useKilled();
    const { code, out, err } = await journal(users, "verify");
    expect([code, err]).toEqual([0, ""]);
    expect(out).toBe(
      `${join(users, "journal")}: 8 records in 4 files, numbers 1 to 8, of 2 users\n  charge  4\n  settle  4`,
    );
  });

  it("names file and offset of damage, with exit code 1, and changes nothing", async () => {
    const users = await useKilled();
    const [, second = ""] = journalFiles(users);
    flip(second, 60);
    const before = readFileSync(second);
    const { code, err } = await journal(users, "verify");
    expect(code).toBe(1);
    expect(err).toMatch(new RegExp(`^error: ${second}: damaged at byte \\d+: the checksum is wrong`));
    expect(err).toContain("npm run journal -- repair");
    expect(readFileSync(second)).toEqual(before);
  });

  it("takes an interrupted write at the end for what it is", async () => {
    const users = await useKilled();
    const last = journalFiles(users).at(-1) ?? "";
    appendFileSync(last, "0123abcd 9 [");
    const { code, out } = await journal(users, "verify");
    expect(code).toBe(0);
    expect(out).toMatch(new RegExp(`${last}: 12 bytes from byte \\d+ on are an interrupted write`));
  });

  it("fails with a reason where there is no journal", async () => {
    expect(await journal(tempDir(), "verify")).toMatchObject({ code: 1, err: expect.stringMatching(/^error: ENOENT/) });
  });
});

describe("npm run journal -- dump", () => {
  it("writes each record as a line of JSON with names, times and amounts for people", async () => {
    const users = await useKilled();
    const { code, out } = await journal(users, "dump");
    expect(code).toBe(0);
    const lines = out.split("\n").map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines).toHaveLength(8);
    expect(lines[1]).toEqual({
      seq: 2,
      kind: "settle",
      at: "2026-11-22T04:00:00.000Z",
      settled_at: "2026-11-22T04:00:00.000Z",
      user: "alice",
      request_id: "req-1",
      model: "deepseek-chat",
      first: { requests: 1, tokens: 10, cost: "0.00000002", currency: "CNY" },
      final: { requests: 1, tokens: 70, cost: "0.000000123", currency: "CNY" },
      usage: { input: 70, cached: 0, output: 0, reasoning: 0 },
      outcome: "completed",
      estimated: false,
      price: "",
    });
  });

  it("reads no further than its output is read", async () => {
    const users = tempDir();
    const ledger = await openTestLedger(users, createManualClock(noon));
    for (let n = 0; n < 450; n++) await spend(ledger, "alice");
    const taken: string[] = [];
    const stopped = async (pieces: AsyncIterable<string>): Promise<void> => {
      for await (const piece of pieces) {
        taken.push(piece);
        break;
      }
    };
    const run: typeof runJournalCli = (argv, io) => runJournalCli(argv, { ...io, outPieces: stopped });
    expect(await runCli(run, ["dump", "--users", users], "/")).toEqual({ code: 0, out: "", err: "" });
    await ledger.close();
    expect(taken.join("").split("\n").length).toBeGreaterThan(100);
    expect(taken.join("").split("\n").length).toBeLessThan(700);
  });

  it("shows what can be read of a damaged journal, and names the rest", async () => {
    const users = await useKilled();
    const [file = ""] = journalFiles(users);
    flip(file, 100);
    const { code, out, err } = await journal(users, "dump");
    expect(code).toBe(1);
    expect(out.split("\n")).toHaveLength(7);
    expect(err).toMatch(/^error: \S+\.journal: damaged at byte \d+: /m);
  });

  it("takes an interrupted write at the end for what it is", async () => {
    const users = await useKilled();
    appendFileSync(journalFiles(users).at(-1) ?? "", "0aa0060d 9 [");
    const { code, out, err } = await journal(users, "dump");
    expect(code).toBe(0);
    expect(out.split("\n")).toHaveLength(8);
    expect(err).toMatch(/its last 12 bytes are an interrupted write/);
  });

  it("shows one user's alone where one is named", async () => {
    const { out } = await journal(await useKilled(), "dump", "--user", "bob");
    expect(out.split("\n").map((line) => (JSON.parse(line) as { user: string }).user)).toEqual(["bob", "bob"]);
  });
});

describe("npm run journal -- repair", () => {
  it("has nothing to do with a sound journal, or one that merely ends in an interrupted write", async () => {
    const users = await useKilled();
    expect(await journal(users, "repair", "--yes")).toMatchObject({
      code: 0,
      out: expect.stringMatching(/nothing to repair/),
    });
    appendFileSync(journalFiles(users).at(-1) ?? "", "0123");
    expect(await journal(users, "repair", "--yes")).toMatchObject({
      code: 0,
      out: expect.stringMatching(/nothing to repair/),
    });
    expect(readdirSync(join(users, "journal"))).toHaveLength(4);
  });

  it("shows what is lost and changes nothing until told to", async () => {
    const users = await useKilled();
    const [, second = ""] = journalFiles(users);
    flip(second, 60);
    const { code, out } = await journal(users, "repair");
    expect(code).toBe(1);
    expect(out).toMatch(new RegExp(`lost: ${second}, byte \\d+, \\d+ bytes: the checksum is wrong: ".*bob`));
    expect(out).toContain("7 records would be kept, 1 lines given up");
    expect(out).toContain("Nothing has been changed");
    expect(await journal(users, "verify")).toMatchObject({ code: 1 });
  });

  it("gives up the damaged line alone, keeps the old file, and a start then takes the journal", async () => {
    const users = await useKilled();
    const files = journalFiles(users);
    const [first = "", second = "", third = ""] = files;
    flip(second, 60);
    const before = new Map(files.map((file) => [file, readFileSync(file)]));
    await expect(recovered(users, "alice")).rejects.toThrow(/damaged at byte/);

    const { code, out } = await journal(users, "repair", "--yes");
    expect(code).toBe(0);
    const aside = /kept aside: (.*)/.exec(out)?.[1] ?? "";
    expect(aside).toMatch(new RegExp(`^${second}\\.damaged-\\d{8}T\\d{6}Z$`));
    expect(readFileSync(aside)).toEqual(before.get(second));
    expect([readFileSync(first), readFileSync(third)]).toEqual([before.get(first), before.get(third)]);

    expect(await recovered(users, "alice")).toEqual([3, 210, 210, 369]);
    // The charge of bob is lost. The settle record is not, and counts for the difference to it.
    expect(await recovered(users, "bob")).toEqual([0, 60, 60, 103]);
    expect(await journal(users, "repair", "--yes")).toMatchObject({
      code: 0,
      out: expect.stringMatching(/nothing to repair/),
    });
  });

  it("is refused while a server holds the folder", async () => {
    const users = await useKilled();
    flip(journalFiles(users)[1] ?? "", 60);
    const processes = createProcessTable({ pid: process.pid, host: hostname(), exists: () => true });
    const lock = await acquireLock({
      path: join(users, ".lock"),
      processes,
      clock: systemClock,
      onLost: () => undefined,
    });
    const { code, err } = await journal(users, "repair", "--yes");
    await lock.release();
    expect(code).toBe(1);
    expect(err).toMatch(/^error: .*\.lock is held by process \d+/);
    expect(await journal(users, "verify")).toMatchObject({ code: 1 });
  });

  it("leaves the journal of another version of the program alone", async () => {
    const users = await useKilled();
    const [first = ""] = journalFiles(users);
    const text = readFileSync(first, "utf8").replace("journal 1 ", "journal 2 ");
    writeFileSync(first, text);
    const { code, err } = await journal(users, "repair", "--yes");
    expect([code, err]).toEqual([1, expect.stringMatching(/format version 2 is not known/)]);
    expect(readFileSync(first, "utf8")).toBe(text);
  });

  it("leaves records of a newer version alone, and a start names the version", async () => {
    const users = await useKilled();
    const [first = ""] = journalFiles(users);
    const text = readFileSync(first, "utf8").replace(/^[0-9a-f]{8} (\d+ \["charge)(".*)$/gm, (_line, head, tail) => {
      const body = `${String(head)}.9${String(tail)}`;
      return `${crc32(body).toString(16).padStart(8, "0")} ${body}`;
    });
    writeFileSync(first, text);
    const newer = /written by a newer version of the program: its format is 9, and this program knows formats up to/;
    for (const command of [["verify"], ["repair", "--yes"]]) {
      const { code, err } = await journal(users, ...command);
      expect([code, err]).toEqual([1, expect.stringMatching(newer)]);
    }
    await expect(openTestLedger(users, systemClock)).rejects.toThrow(newer);
    expect(readFileSync(first, "utf8")).toBe(text);
  });
});

describe("the journal command", () => {
  it.each([[], ["mend"], ["verify", "it"], ["dump", "--colour"]])(
    "answers %j with exit code 2 and the usage",
    async (...argv) => {
      const { code, err } = await journal(tempDir(), ...argv);
      expect([code, err]).toEqual([2, expect.stringMatching(/^Usage: npm run journal.*\n\nerror: .*$/s)]);
    },
  );

  it("finds the folder that the config file names", async () => {
    const users = await useKilled();
    const folder = tempDir();
    writeFileSync(join(folder, "config.toml"), `[storage]\nusers_dir = ${JSON.stringify(users)}\n`);
    expect(await runCli(runJournalCli, ["verify"], folder)).toMatchObject({
      code: 0,
      out: expect.stringMatching(/8 records/),
    });
    rmSync(join(folder, "config.toml"));
    expect(await runCli(runJournalCli, ["verify"], folder)).toMatchObject({ code: 1 });
  });
});
