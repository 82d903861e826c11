import { appendFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { carryOut, planSalvage } from "../../src/cli/journal-salvage.ts";
import { encodeHeader, encodeRecord, maxRecordBytes } from "../../src/lib/journal/journal-format.ts";
import { readJournal } from "../../src/lib/journal/journal-folder.ts";
import { tempDir } from "../support/temp-dir.ts";

const perFile = 3;

function record(seq: number): string {
  const buffer = Buffer.alloc(maxRecordBytes);
  return buffer.toString("utf8", 0, encodeRecord(buffer, seq, `["é",${seq}]`));
}

function fileName(first: number): string {
  return `${String(first).padStart(16, "0")}.journal`;
}

/** A journal of the records 1 to 9, three to a file. */
function makeJournal(folder = tempDir()): string {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  for (const first of [1, 4, 7]) {
    const records = Array.from({ length: perFile }, (_, index) => record(first + index));
    writeFileSync(join(folder, fileName(first)), encodeHeader({ first, previous: first - 1 }) + records.join(""));
  }
  return folder;
}

/** Throws like a reader of records that knows no others. */
function check(payload: string): void {
  if (!/^\["é",\d+\]$/.test(payload)) throw new Error("unknown");
}

/** The numbers of the records that a start would read. Throws where it would not start. */
function read(folder: string): number[] {
  const seqs: number[] = [];
  readJournal(folder, (seq, payload) => {
    check(payload);
    seqs.push(seq);
  });
  return seqs;
}

async function repair(folder: string): Promise<number[]> {
  await carryOut(folder, await planSalvage(folder, check), ".aside");
  return read(folder);
}

const all = [1, 2, 3, 4, 5, 6, 7, 8, 9];

describe("a damaged journal", () => {
  it("loses the line with the flipped byte, or two where it was the end between them, and nothing else", async () => {
    const folder = makeJournal();
    for (const name of readdirSync(folder)) {
      const { length } = readFileSync(join(folder, name));
      for (let offset = 0; offset < length; offset += 3) {
        makeJournal(folder);
        const bytes = readFileSync(join(folder, name));
        const wasEnd = bytes[offset] === 10;
        bytes[offset] = (bytes[offset] ?? 0) ^ 0x20;
        writeFileSync(join(folder, name), bytes);
        const kept = await repair(folder);
        const place = `${name} at byte ${offset}`;
        expect(kept.length, place).toBeGreaterThanOrEqual(all.length - (wasEnd ? 2 : 1));
        expect(all, place).toEqual(expect.arrayContaining(kept));
      }
    }
  });

  it("goes on without a file that is missing in the middle", async () => {
    const folder = makeJournal();
    rmSync(join(folder, fileName(4)));
    expect(() => read(folder)).toThrow(/missing before this file/);
    expect(await repair(folder)).toEqual([1, 2, 3, 7, 8, 9]);
  });

  it("drops a line that came twice, or that is none of ours", async () => {
    const folder = makeJournal();
    const middle = join(folder, fileName(4));
    const foreign = Buffer.alloc(maxRecordBytes);
    const length = encodeRecord(foreign, 7, "{}");
    appendFileSync(middle, record(5) + foreign.toString("utf8", 0, length) + "and this\n");
    const { lost } = await planSalvage(folder, check);
    expect(lost.map(({ reason }) => reason)).toEqual([
      "record 5 comes after record 6",
      "record 7 makes no sense: unknown",
      "the line is not a record",
    ]);
    expect(await repair(folder)).toEqual(all);
  });

  it("is whole again after its header alone was lost, even where a record follows without its line end", async () => {
    const folder = makeJournal();
    const middle = join(folder, fileName(4));
    writeFileSync(middle, readFileSync(middle, "utf8").replace(/^.*\n/, "").slice(0, -1));
    expect(await repair(folder)).toEqual(all);
  });

  it("can be repaired again after a repair that was interrupted at any of its files", async () => {
    for (let done = 0; done <= 3; done++) {
      const folder = makeJournal();
      for (const first of [1, 4, 7]) {
        const file = join(folder, fileName(first));
        writeFileSync(file, readFileSync(file, "utf8").replace(record(first), ""));
      }
      const plan = await planSalvage(folder, check);
      await carryOut(folder, { ...plan, rewrites: plan.rewrites.slice(0, done) }, ".first");
      await carryOut(folder, await planSalvage(folder, check), ".second");
      expect(read(folder)).toEqual([2, 3, 5, 6, 8, 9]);
    }
  });
});
