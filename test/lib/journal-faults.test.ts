import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { JournalError } from "../../src/lib/journal/journal-segment.ts";
import { createFaultyFiles, type Fault } from "../support/faulty-files.ts";
import { openTestJournal } from "../support/journal.ts";
import { tempDir } from "../support/temp-dir.ts";

const faults: Fault[] = ["ENOSPC", "EIO", "short"];

describe("a failing write", () => {
  it.each(faults)(
    "with %s at any place loses no record that was taken and keeps none that was refused",
    async (fault) => {
      for (let nth = 1; nth <= 30; nth++) {
        const folder = tempDir();
        const ops = createFaultyFiles();
        const { journal } = await openTestJournal(folder, { ops, segmentBytes: 150 });
        ops.fail("write", fault, nth, 2);
        const taken: string[] = [];
        let refused = 0;
        for (let i = 0; i < 20; i++) {
          try {
            taken.push(`${journal.append(`try ${i}`)} try ${i}`);
          } catch (error) {
            expect(error).toBeInstanceOf(JournalError);
            refused++;
          }
        }
        expect(refused).toBe(Math.min(2, Math.max(0, ops.count("write") - nth + 1)));
        expect(journal.failure()).toBeUndefined();
        expect((await openTestJournal(folder)).records).toEqual(taken);
      }
    },
  );

  it("whose half cannot be cut away ends all appending; recovery cuts it", async () => {
    const folder = tempDir();
    const ops = createFaultyFiles();
    const failures: Error[] = [];
    const { journal } = await openTestJournal(folder, { ops, onFailure: (error) => failures.push(error) });
    journal.append("a");
    ops.fail("write", "short");
    ops.fail("truncate", "EIO");
    expect(() => journal.append("b")).toThrow("could not be cut away");
    expect(() => journal.append("c")).toThrow("could not be cut away");
    expect(failures).toHaveLength(1);
    expect((await openTestJournal(folder)).records).toEqual(["1 a"]);
  });

  it("at the beginning of a new file leaves nothing that stops recovery or the next try", async () => {
    for (const unlinkFails of [false, true]) {
      const folder = tempDir();
      const ops = createFaultyFiles();
      const { journal } = await openTestJournal(folder, { ops });
      ops.fail("write", "short");
      if (unlinkFails) ops.fail("unlink", "EIO");
      expect(() => journal.append("a")).toThrow("only");
      expect((await openTestJournal(folder)).records).toEqual([]);
      expect(journal.append("b")).toBe(1);
      expect((await openTestJournal(folder)).records).toEqual(["1 b"]);
    }
  });

  it("that cannot open a new file leaves the old ones as they are", async () => {
    const folder = tempDir();
    const ops = createFaultyFiles();
    const { journal } = await openTestJournal(folder, { ops, segmentBytes: 1 });
    journal.append("a");
    ops.fail("open", "ENOSPC");
    expect(() => journal.append("b")).toThrow("no new journal file");
    expect(readdirSync(join(folder, "journal"))).toHaveLength(1);
    expect(journal.append("c")).toBe(2);
  });
});

describe("a failing sync", () => {
  it.each([1, 2])("(number %i of a first round) fails those who wait, and is never tried again", async (nth) => {
    const ops = createFaultyFiles();
    const failures: Error[] = [];
    const { journal } = await openTestJournal(tempDir(), { ops, onFailure: (error) => failures.push(error) });
    const first = journal.append("a");
    ops.fail("sync", "EIO", nth);
    const waits = [journal.synced(first), journal.synced(journal.append("b"))];
    for (const wait of waits) await expect(wait).rejects.toThrow("EIO");
    expect(failures).toHaveLength(1);
    expect(journal.failure()).toBe(failures[0]);
    const syncs = ops.count("sync");
    expect(() => journal.append("c")).toThrow("could not be synced");
    await expect(journal.synced(first)).rejects.toThrow("EIO");
    await expect(journal.close()).rejects.toThrow("could not be synced");
    expect(ops.count("sync")).toBe(syncs);
  });

  it("before a new file is begun ends all appending too", async () => {
    const folder = tempDir();
    const ops = createFaultyFiles();
    const { journal } = await openTestJournal(folder, { ops, segmentBytes: 1 });
    journal.append("a");
    ops.fail("sync", "EIO");
    expect(() => journal.append("b")).toThrow("could not be synced");
    expect(() => journal.append("c")).toThrow("could not be synced");
    expect((await openTestJournal(folder)).records).toEqual(["1 a"]);
  });

  it("is found out by close", async () => {
    const ops = createFaultyFiles();
    const { journal } = await openTestJournal(tempDir(), { ops });
    journal.append("a");
    ops.fail("sync", "EIO");
    await expect(journal.close()).rejects.toThrow("EIO");
  });
});

describe("recovery", () => {
  it("rejects where it cannot sync its cut, and can be run again", async () => {
    const folder = tempDir();
    const writer = createFaultyFiles();
    const { journal } = await openTestJournal(folder, { ops: writer });
    journal.append("a");
    writer.fail("write", "short");
    writer.fail("truncate", "EIO");
    expect(() => journal.append("b")).toThrow(JournalError);
    const ops = createFaultyFiles();
    ops.fail("sync", "EIO", 2);
    await expect(openTestJournal(folder, { ops })).rejects.toThrow("EIO");
    expect((await openTestJournal(folder)).records).toEqual(["1 a"]);
    expect(statSync(join(folder, "journal")).isDirectory()).toBe(true);
  });
});
