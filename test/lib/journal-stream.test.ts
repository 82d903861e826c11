import { appendFileSync, mkdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { type JournalPiece, streamJournal } from "../../src/lib/journal/journal-stream.ts";
import { journalFiles, openTestJournal } from "../support/journal.ts";
import { tempDir } from "../support/temp-dir.ts";

/** A journal of 40 records in files of about 8. */
async function useJournal(): Promise<{ readonly folder: string; readonly folders: readonly string[] }> {
  const folder = tempDir();
  const { journal } = await openTestJournal(folder, { segmentBytes: 400 });
  for (let n = 1; n <= 40; n++) journal.append(`record ${n} ${"x".repeat(20)}`);
  await journal.close();
  const archive = join(folder, "journal", "archive");
  mkdirSync(archive);
  return { folder, folders: [join(folder, "journal"), archive] };
}

/** The numbers of the records that are read, and what is said about the others. */
async function read(folders: readonly string[], onPiece: (piece: JournalPiece) => void = () => undefined) {
  const seqs: number[] = [];
  const said: string[] = [];
  for await (const piece of streamJournal(folders)) {
    if (piece.kind === "records") seqs.push(...piece.records.map(({ seq }) => seq));
    else if (piece.kind === "gap") said.push(`${piece.first}-${piece.last}`);
    else if (piece.kind === "damage") said.push(`${basename(piece.path)}: ${piece.message}`);
    onPiece(piece);
  }
  return { seqs, said };
}

const upTo = (last: number, first = 1) => Array.from({ length: last - first + 1 }, (_, index) => first + index);

function moveToArchive(file: string, isCompressed: boolean): string {
  const moved = join(dirname(file), "archive", basename(file));
  if (!isCompressed) renameSync(file, moved);
  else {
    writeFileSync(`${moved}.gz`, gzipSync(readFileSync(file)));
    rmSync(file);
  }
  return isCompressed ? `${moved}.gz` : moved;
}

/** The files of the journal alone. */
const filesOf = (folder: string) => journalFiles(folder).filter((file) => file.endsWith(".journal"));

describe("a journal that is read as it is", () => {
  it("has all records, from plain and compressed files, also where both of one are there", async () => {
    const { folder, folders } = await useJournal();
    const [first = "", second = "", third = ""] = filesOf(folder);
    moveToArchive(first, true);
    moveToArchive(second, false);
    // As a compression that was interrupted leaves it.
    writeFileSync(join(folder, "journal", "archive", `${basename(second)}.gz`), gzipSync(readFileSync(third)));
    writeFileSync(join(folder, "journal", "archive", `${basename(second)}.gz.part`), "half");
    expect(await read(folders)).toEqual({ seqs: upTo(40), said: [] });
    expect(await read([join(folder, "none")])).toEqual({ seqs: [], said: [] });
  });

  it("has them all once where files move, are compressed and are removed meanwhile, and none that came later", async () => {
    const { folder, folders } = await useJournal();
    const { journal } = await openTestJournal(folder, { segmentBytes: 400 });
    const files = filesOf(folder);
    let turn = 0;
    const { seqs, said } = await read(folders, () => {
      const file = files.at(++turn);
      if (file !== undefined && turn < files.length - 1) moveToArchive(file, turn % 2 === 0);
      journal.append("later");
    });
    expect({ seqs, said }).toEqual({ seqs: upTo(40), said: [] });
    await journal.close();
  });

  it("says which records are in no file", async () => {
    const { folder, folders } = await useJournal();
    const files = filesOf(folder);
    const [firstOfSecond, firstOfThird, firstOfFourth] = files
      .slice(1)
      .map((file) => Number(basename(file, ".journal")));
    rmSync(files[0] ?? "");
    rmSync(files[2] ?? "");
    const { seqs, said } = await read(folders);
    expect(said).toEqual([`1-${(firstOfSecond ?? 0) - 1}`, `${firstOfThird}-${(firstOfFourth ?? 0) - 1}`]);
    expect(seqs).toEqual([...upTo((firstOfThird ?? 0) - 1, firstOfSecond), ...upTo(40, firstOfFourth)]);
  });

  it("names a damaged line, and reads what is behind it", async () => {
    const { folder, folders } = await useJournal();
    const [, file = ""] = filesOf(folder);
    const text = readFileSync(file, "utf8");
    const lost = Number(/ (\d+) record \d+ x/.exec(text.slice(200))?.[1]);
    writeFileSync(file, text.replace(`record ${lost} x`, `record ${lost} y`));
    const { seqs, said } = await read(folders);
    expect(seqs).toEqual(upTo(40).filter((seq) => seq !== lost));
    expect(said[0]).toBe(`${lost}-${lost}`);
    expect(said[1]).toMatch(/^\d{16}\.journal: damaged at byte \d+: the checksum is wrong$/);
  });

  it.each(["cut", "overwritten"])("names a compressed file that is %s, and goes on with the next", async (how) => {
    const { folder, folders } = await useJournal();
    const files = filesOf(folder);
    const file = moveToArchive(files[1] ?? "", true);
    const bytes = readFileSync(file);
    if (how === "cut") truncateSync(file, bytes.length - 12);
    else writeFileSync(file, bytes.fill(0, 0, 10));
    const { seqs, said } = await read(folders);
    const next = Number(basename(files[2] ?? "", ".journal"));
    expect(seqs).toEqual(expect.arrayContaining(upTo(40, next)));
    expect(said.join("\n")).toMatch(/\.journal\.gz: damaged at byte \d+: the rest cannot be read/);
    expect(seqs.length + missingIn(said)).toBe(40);
  });

  it("names an interrupted write at the end", async () => {
    const { folder, folders } = await useJournal();
    appendFileSync(filesOf(folder).at(-1) ?? "", "0123abcd 41 reco");
    const { seqs, said } = await read(folders);
    expect(seqs).toEqual(upTo(40));
    expect(said).toEqual([expect.stringMatching(/its last 16 bytes are an interrupted write/)]);
  });
});

function missingIn(said: readonly string[]): number {
  const gaps = said.flatMap((line) => /^(\d+)-(\d+)$/.exec(line)?.slice(1).map(Number) ?? []);
  return gaps.length === 0 ? 0 : (gaps[1] ?? 0) - (gaps[0] ?? 0) + 1;
}
