import { appendFileSync, mkdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { type JournalPiece, type JournalPosition, streamJournal } from "../../src/lib/journal/journal-stream.ts";
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
async function read(
  folders: readonly string[],
  onPiece: (piece: JournalPiece) => void = () => undefined,
  after?: JournalPosition,
) {
  const seqs: number[] = [];
  const said: string[] = [];
  for await (const piece of streamJournal(folders, after)) {
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

/** What is read behind a position, and where that ends. */
async function readAfter(folders: readonly string[], after: JournalPosition | undefined) {
  let end: JournalPosition | undefined;
  const found = await read(
    folders,
    (piece) => {
      if (piece.kind === "end") end = piece.position;
    },
    after,
  );
  return { ...found, end };
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

describe("a journal that is read on from where an earlier reading ended", () => {
  /** A journal of 40 records whose first reading ended after 20 of them, in the middle of a file. */
  async function useReadHalf() {
    const folder = tempDir();
    const { journal } = await openTestJournal(folder, { segmentBytes: 400 });
    for (let n = 1; n <= 20; n++) journal.append(`record ${n} ${"x".repeat(20)}`);
    const archive = join(folder, "journal", "archive");
    mkdirSync(archive);
    const folders = [join(folder, "journal"), archive];
    const first = await readAfter(folders, undefined);
    expect(first).toMatchObject({ seqs: upTo(20), said: [], end: { seq: 20 } });
    for (let n = 21; n <= 40; n++) journal.append(`record ${n} ${"x".repeat(20)}`);
    await journal.close();
    const current = join(folder, "journal", `${first.end?.file}.journal`);
    // Otherwise nothing would have to be skipped in it.
    const inIt = readFileSync(current, "utf8");
    expect([...inIt.matchAll(/record (\d+) x/g)].map(([, n]) => Number(n))).toEqual(expect.arrayContaining([20, 21]));
    return { folder, folders, current, end: first.end };
  }

  it("has only what is new, and then nothing", async () => {
    const { folders, end } = await useReadHalf();
    const second = await readAfter(folders, end);
    expect(second).toMatchObject({ seqs: upTo(40, 21), said: [], end: { seq: 40 } });
    expect(await readAfter(folders, second.end)).toEqual({ seqs: [], said: [], end: second.end });
  });

  it.each([
    ["moved to the archive", false, false],
    ["moved and compressed", true, false],
    ["compressed, with the plain one still there", true, true],
  ])("has only what is new where the file was %s", async (_how, isCompressed, staysPlain) => {
    const { folder, folders, current, end } = await useReadHalf();
    const plain = readFileSync(current);
    for (const file of filesOf(folder)) if (file <= current) moveToArchive(file, isCompressed);
    if (staysPlain) writeFileSync(current, plain);
    expect(await readAfter(folders, end)).toMatchObject({ seqs: upTo(40, 21), said: [], end: { seq: 40 } });
  });

  it("goes on within a compressed file, and ends in it", async () => {
    const { folder, folders, end } = await useReadHalf();
    for (const file of filesOf(folder)) moveToArchive(file, true);
    const second = await readAfter(folders, end);
    expect(second).toMatchObject({ seqs: upTo(40, 21), said: [], end: { seq: 40 } });
    expect(await readAfter(folders, second.end)).toEqual({ seqs: [], said: [], end: second.end });
  });

  it("goes on where an interrupted write was at the end, once it is whole", async () => {
    const folder = tempDir();
    const { journal } = await openTestJournal(folder);
    for (let n = 1; n <= 3; n++) journal.append(`record ${n}`);
    await journal.close();
    const [file = ""] = filesOf(folder);
    const whole = readFileSync(file);
    truncateSync(file, whole.length - 4);
    const first = await readAfter([join(folder, "journal")], undefined);
    expect(first).toMatchObject({ seqs: [1, 2], end: { seq: 2 } });
    writeFileSync(file, whole);
    expect(await readAfter([join(folder, "journal")], first.end)).toMatchObject({ seqs: [3], said: [] });
  });

  it("says which records are gone where the oldest files, with the position among them, were removed", async () => {
    const { folder, folders, current, end } = await useReadHalf();
    for (const file of filesOf(folder)) if (file <= current) rmSync(file);
    const next = Number(basename(filesOf(folder)[0] ?? "", ".journal"));
    expect(await readAfter(folders, end)).toMatchObject({
      seqs: upTo(40, next),
      said: [`21-${next - 1}`],
      end: { seq: 40 },
    });
  });
});

function missingIn(said: readonly string[]): number {
  const gaps = said.flatMap((line) => /^(\d+)-(\d+)$/.exec(line)?.slice(1).map(Number) ?? []);
  return gaps.length === 0 ? 0 : (gaps[1] ?? 0) - (gaps[0] ?? 0) + 1;
}
