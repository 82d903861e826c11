import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { readJournal } from "../../src/lib/journal/journal-folder.ts";
import { journalFiles, openTestJournal } from "../support/journal.ts";
import { createFaultyFiles } from "../support/faulty-files.ts";
import { tempDir } from "../support/temp-dir.ts";

describe("a journal", () => {
  it("gives back what was appended, in order and without a close", async () => {
    const folder = tempDir();
    const { journal, records } = await openTestJournal(folder);
    expect(records).toEqual([]);
    expect([journal.append("one"), journal.append("zwei ü"), journal.append("")]).toEqual([1, 2, 3]);
    const again = await openTestJournal(folder);
    expect(again.records).toEqual(["1 one", "2 zwei ü", "3 "]);
    expect(again.journal.append("four")).toBe(4);
    expect((await openTestJournal(folder)).records.at(-1)).toBe("4 four");
  });

  it("makes files that only their owner may read, and none before the first record", async () => {
    const folder = tempDir();
    const { journal } = await openTestJournal(folder);
    expect(journalFiles(folder)).toEqual([]);
    journal.append("x");
    expect(journalFiles(folder).map((file) => statSync(file).mode & 0o777)).toEqual([0o600]);
    expect(statSync(join(folder, "journal")).mode & 0o777).toBe(0o700);
  });

  it("is text: a header, then checksum, number and payload a line", async () => {
    const folder = tempDir();
    (await openTestJournal(folder)).journal.append('["charge"]');
    const [header, record, rest] = readFileSync(journalFiles(folder)[0] ?? "", "utf8").split("\n");
    expect(header).toMatch(/^journal 1 first=1 previous=0 [0-9a-f]{8}$/);
    expect(record).toMatch(/^[0-9a-f]{8} 1 \["charge"\]$/);
    expect(rest).toBe("");
  });

  it("refuses a record with a line end or one that is too long, and goes on", async () => {
    const folder = tempDir();
    const { journal } = await openTestJournal(folder);
    expect(() => journal.append("a\nb")).toThrow(RangeError);
    expect(() => journal.append("ü".repeat(40_000))).toThrow(RangeError);
    expect(journal.append("ü".repeat(30_000))).toBe(1);
    expect((await openTestJournal(folder)).records).toEqual([`1 ${"ü".repeat(30_000)}`]);
  });

  it("begins a new file at its size, and recovers across files", async () => {
    const folder = tempDir();
    const { journal } = await openTestJournal(folder, { segmentBytes: 200 });
    for (let i = 1; i <= 50; i++) journal.append(`record ${i}`);
    expect(journalFiles(folder).length).toBeGreaterThan(5);
    const { records, content } = await openTestJournal(folder);
    expect(records).toEqual(Array.from({ length: 50 }, (_, i) => `${i + 1} record ${i + 1}`));
    expect(content.segments.at(-1)?.last).toBe(50);
  });

  it("drops the files that are wholly covered and no others", async () => {
    const folder = tempDir();
    const { journal } = await openTestJournal(folder, { segmentBytes: 200 });
    for (let i = 1; i <= 50; i++) journal.append(`record ${i}`);
    await journal.dropThrough(30);
    const { records, content } = await openTestJournal(folder);
    const [first] = content.segments;
    expect(first?.first).toBeLessThanOrEqual(31);
    expect(first?.last).toBeGreaterThan(30);
    expect(records.at(-1)).toBe("50 record 50");
    await journal.dropThrough(50);
    expect(journalFiles(folder)).toHaveLength(1);
    expect(journal.append("next")).toBe(51);
  });

  it("starts above the number it is told, and remembers the gap as meant", async () => {
    const folder = tempDir();
    (await openTestJournal(folder)).journal.append("a");
    (await openTestJournal(folder, { minimumSeq: 1000 })).journal.append("b");
    expect((await openTestJournal(folder)).records).toEqual(["1 a", "1000 b"]);
  });

  it("reads records that lie across the reader's chunks", async () => {
    const folder = tempDir();
    const { journal } = await openTestJournal(folder, { segmentBytes: 1 << 30 });
    for (let i = 0; i < 300; i++) journal.append("x".repeat(10_000 + i));
    const { records } = await openTestJournal(folder);
    expect(records.map((record) => record.length)).toEqual(
      Array.from({ length: 300 }, (_, i) => 10_001 + i + String(i + 1).length),
    );
  });

  it("tells how far it has come before each file", async () => {
    const folder = tempDir();
    const { journal } = await openTestJournal(folder, { segmentBytes: 100 });
    for (let i = 0; i < 6; i++) journal.append("x".repeat(60));
    const steps: number[] = [];
    readJournal(
      join(folder, "journal"),
      () => undefined,
      ({ records, count }) => steps.push(records / count),
    );
    expect(steps).toEqual(steps.map((_, index) => index / steps.length));
  });
});

describe("syncing", () => {
  it("happens after the interval, and not again while nothing is appended", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const ops = createFaultyFiles();
      const { journal } = await openTestJournal(tempDir(), { ops, syncIntervalMs: 50 });
      const before = ops.count("sync");
      journal.append("a");
      journal.append("b");
      expect(journal.lag()).toEqual({ records: 2, bytes: 26 });
      expect(ops.count("sync")).toBe(before);
      vi.advanceTimersByTime(50);
      await journal.synced(2);
      // One for the file, one for the folder that it is new in.
      expect(ops.count("sync")).toBe(before + 2);
      expect(journal.lag()).toEqual({ records: 0, bytes: 0 });
      vi.advanceTimersByTime(500);
      expect(vi.getTimerCount()).toBe(0);
      expect(ops.count("sync")).toBe(before + 2);
    } finally {
      vi.useRealTimers();
    }
  });

  it("is shared by those who wait for it together", async () => {
    const ops = createFaultyFiles();
    const { journal } = await openTestJournal(tempDir(), { ops });
    await journal.synced(journal.append("new file"));
    const before = ops.count("sync");
    await Promise.all(Array.from({ length: 100 }, () => journal.synced(journal.append("x"))));
    expect(ops.count("sync") - before).toBeLessThanOrEqual(2);
    expect(journal.lag().records).toBe(0);
  });

  it("covers only what was appended before it began", async () => {
    const ops = createFaultyFiles();
    const { journal } = await openTestJournal(tempDir(), { ops });
    await journal.synced(journal.append("new file"));
    const started: (() => void)[] = [];
    ops.fdatasync = () => new Promise((resolve) => started.push(resolve));
    let second = false;
    const first = journal.synced(journal.append("a"));
    const later = journal.synced(journal.append("b")).then(() => (second = true));
    await vi.waitFor(() => {
      expect(started).toHaveLength(1);
    });
    started[0]?.();
    await first;
    expect(second).toBe(false);
    await vi.waitFor(() => {
      expect(started).toHaveLength(2);
    });
    started[1]?.();
    await later;
    expect(second).toBe(true);
  });

  it("is done by close, after which nothing is taken", async () => {
    const folder = tempDir();
    const ops = createFaultyFiles();
    const { journal } = await openTestJournal(folder, { ops });
    journal.append("a");
    const before = ops.count("sync");
    await journal.close();
    expect(ops.count("sync")).toBeGreaterThan(before);
    expect(() => journal.append("b")).toThrow("closed");
    expect((await openTestJournal(folder)).records).toEqual(["1 a"]);
  });
});
