import { appendFileSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readJournal } from "../../src/lib/journal/journal-folder.ts";
import { journalFiles, openTestJournal } from "../support/journal.ts";
import { tempDir } from "../support/temp-dir.ts";

describe("a torn tail", () => {
  it("is cut off, whichever byte of the last record the write came to", async () => {
    const folder = tempDir();
    const { journal } = await openTestJournal(folder);
    journal.append("first");
    journal.append("last");
    const [file = ""] = journalFiles(folder);
    const whole = readFileSync(file);
    const lastStart = whole.lastIndexOf("\n", whole.length - 2) + 1;
    for (let end = lastStart; end < whole.length; end++) {
      for (const nuls of [0, 1, 4096]) {
        writeFileSync(file, Buffer.concat([whole.subarray(0, end), Buffer.alloc(nuls)]));
        const { records, content } = await openTestJournal(folder);
        expect(records).toEqual(["1 first"]);
        const bytes = end - lastStart + nuls;
        expect(content.torn).toEqual(bytes === 0 ? undefined : { file, offset: lastStart, bytes });
        expect(readFileSync(file)).toEqual(whole.subarray(0, lastStart));
      }
    }
  });

  it("may be a whole file that ends inside its header", async () => {
    const folder = tempDir();
    (await openTestJournal(folder)).journal.append("a");
    const [file = ""] = journalFiles(folder);
    const header = readFileSync(file).subarray(0, readFileSync(file).indexOf("\n") + 1);
    const next = join(folder, "journal", "0000000000000002.journal");
    for (let end = 0; end <= header.length; end++) {
      writeFileSync(next, header.toString().replace("first=1 previous=0", "first=2 previous=1").slice(0, end));
      if (end === header.length) break;
      const { records, journal } = await openTestJournal(folder);
      expect(records).toEqual(["1 a"]);
      expect(journalFiles(folder)).toEqual([file]);
      expect(journal.lastSeq()).toBe(1);
    }
    // With its line end it is a whole header, whose checksum this one does not have.
    await expect(openTestJournal(folder)).rejects.toMatchObject({ file: next, offset: 0 });
  });

  it("goes on being readable when it is cut and written on again and again", async () => {
    const folder = tempDir();
    const expected: string[] = [];
    for (let round = 1; round <= 5; round++) {
      const { journal, records } = await openTestJournal(folder);
      expect(records).toEqual(expected);
      expected.push(`${journal.append(`round ${round}`)} round ${round}`);
      appendFileSync(journalFiles(folder).at(-1) ?? "", "0123abcd 99 ha");
    }
    expect((await openTestJournal(folder)).records).toEqual(expected);
  });
});

describe("damage", () => {
  async function filled(): Promise<{ folder: string; files: string[]; offsets: number[] }> {
    const folder = tempDir();
    const { journal } = await openTestJournal(folder, { segmentBytes: 300 });
    for (let i = 1; i <= 25; i++) journal.append(`record number ${i}`);
    const files = journalFiles(folder);
    const text = readFileSync(files[0] ?? "", "latin1");
    const offsets = [0, ...[...text.matchAll(/\n/g)].map(({ index }) => index + 1).slice(0, -1)];
    return { folder, files, offsets };
  }

  it("by one flipped bit anywhere is refused, with file and offset, and nothing is changed", async () => {
    const { folder, files, offsets } = await filled();
    const file = files[0] ?? "";
    const whole = readFileSync(file);
    for (let at = 0; at < whole.length; at++) {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ 1;
      writeFileSync(file, bytes);
      const lineStart = offsets.findLast((offset) => offset <= at) ?? 0;
      expect(() => readJournal(join(folder, "journal"), () => undefined)).toThrow(
        expect.objectContaining({ name: "JournalDamage", file, offset: lineStart }) as Error,
      );
      if (at % 50 !== 0) continue;
      await expect(openTestJournal(folder)).rejects.toThrow(`${file}: damaged at byte ${lineStart}`);
      expect(readFileSync(file)).toEqual(bytes);
    }
  });

  it("of the last record is refused too, for it was whole and may have been acknowledged", async () => {
    const { folder, files } = await filled();
    const file = files.at(-1) ?? "";
    const whole = readFileSync(file);
    const lastStart = whole.lastIndexOf("\n", whole.length - 2) + 1;
    for (let at = lastStart; at < whole.length; at++) {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ 1;
      writeFileSync(file, bytes);
      await expect(openTestJournal(folder)).rejects.toMatchObject({ file, offset: lastStart });
    }
  });

  it("is a torn line with records after it", async () => {
    const { folder, files } = await filled();
    const file = files.at(-1) ?? "";
    const whole = readFileSync(file, "latin1");
    const lastStart = whole.lastIndexOf("\n", whole.length - 2) + 1;
    writeFileSync(file, `${whole.slice(0, lastStart)}0123abcd 2\0\0\0${whole.slice(lastStart)}`);
    await expect(openTestJournal(folder)).rejects.toMatchObject({ file, offset: lastStart });
  });

  it("is a torn end of any file but the newest", async () => {
    const { folder, files } = await filled();
    const file = files[1] ?? "";
    const whole = readFileSync(file);
    writeFileSync(file, whole.subarray(0, whole.length - 3));
    await expect(openTestJournal(folder)).rejects.toMatchObject({ file });
  });

  it("is a missing file in the middle, or one cut at a line's end", async () => {
    const { folder, files } = await filled();
    const whole = readFileSync(files[1] ?? "", "latin1");
    rmSync(files[1] ?? "");
    await expect(openTestJournal(folder)).rejects.toMatchObject({ file: files[2], offset: 0 });
    writeFileSync(files[1] ?? "", whole.slice(0, whole.lastIndexOf("\n", whole.length - 2) + 1));
    await expect(openTestJournal(folder)).rejects.toThrow(/records \d+ to \d+ are missing before this file/);
  });

  it("is a repeated record", async () => {
    const { folder, files } = await filled();
    const file = files.at(-1) ?? "";
    const whole = readFileSync(file, "latin1");
    writeFileSync(file, whole + whole.slice(whole.lastIndexOf("\n", whole.length - 2) + 1));
    await expect(openTestJournal(folder)).rejects.toMatchObject({ file, offset: whole.length });
  });

  it("is a file under another's name", async () => {
    const { folder, files } = await filled();
    writeFileSync(join(folder, "journal", "0000000000000999.journal"), readFileSync(files.at(-1) ?? ""));
    await expect(openTestJournal(folder)).rejects.toThrow("the file's name something else");
  });

  it("is what a newer version of the program wrote", async () => {
    const { folder, files } = await filled();
    const file = files[0] ?? "";
    writeFileSync(file, readFileSync(file, "latin1").replace("journal 1", "journal 2"));
    await expect(openTestJournal(folder)).rejects.toThrow("format version 2 is not known");
  });

  it("is a symlink, whose target stays as it is", async () => {
    const folder = tempDir();
    await openTestJournal(folder);
    writeFileSync(join(folder, "target"), "precious");
    symlinkSync(join(folder, "target"), join(folder, "journal", "0000000000000001.journal"));
    await expect(openTestJournal(folder)).rejects.toMatchObject({ code: "ELOOP" });
    expect(readFileSync(join(folder, "target"), "utf8")).toBe("precious");
  });
});
