import { link, readFile, unlink } from "node:fs/promises";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { syncFolder, writeFileAtomic } from "../lib/files/atomic-file.ts";
import { segmentPath } from "../lib/journal/journal-folder.ts";
import {
  decodeHeader,
  encodeHeader,
  NewerVersionError,
  RecordCursor,
  type SegmentHeader,
} from "../lib/journal/journal-format.ts";

const newline = 10;

/** A line that cannot be kept. */
interface LostLine {
  readonly file: string;
  /** Its byte offset. */
  readonly offset: number;
  readonly bytes: number;
  readonly reason: string;
  /** Its content, as far as it can be read. */
  readonly text: string;
}

/** Adjacent lines of one file that are kept: records `first` to `last`, bytes [start, end). */
interface Run {
  readonly first: number;
  readonly last: number;
  readonly start: number;
  readonly end: number;
}

/** A file that has to change: each of its runs becomes a file. */
interface Rewrite {
  readonly file: string;
  readonly runs: readonly Run[];
  /** Number of the last record kept before this file. */
  readonly previous: number;
}

/** How to repair a damaged journal without losing a readable record. */
export interface SalvagePlan {
  readonly kept: number;
  readonly lost: readonly LostLine[];
  readonly rewrites: readonly Rewrite[];
}

/** Checks that a payload is a valid record; throws if it is not. */
export type CheckPayload = (payload: string) => unknown;

/**
 * Reads a journal line by line, skipping all damage, and plans which files to rewrite. Changes nothing. Throws if a
 * file was written by another version of the program, whose records have another meaning.
 * @param coveredSeq as for readJournal
 */
export async function planSalvage(folder: string, check: CheckPayload, coveredSeq = Infinity): Promise<SalvagePlan> {
  const files = readdirSync(folder).filter((name) => /^\d{16}\.journal$/.test(name));
  const lost: LostLine[] = [];
  const rewrites: Rewrite[] = [];
  let previous: number | undefined;
  let kept = 0;
  for (const name of files.sort()) {
    const file = join(folder, name);
    const { header, runs, losses } = readLines(file, await readFile(file), previous ?? 0, check);
    lost.push(...losses);
    const isNewest = name === files.at(-1);
    const isNext = previous === undefined ? (header?.previous ?? 0) <= coveredSeq : header?.previous === previous;
    if (!isNext || !isSound(file, header, runs, losses, isNewest)) {
      rewrites.push({ file, runs, previous: previous ?? Math.min(header?.previous ?? 0, coveredSeq) });
    }
    for (const { first, last } of runs) kept += last - first + 1;
    previous = runs.at(-1)?.last ?? previous;
  }
  return { kept, lost, rewrites };
}

/** Whether a start would accept the file as it is, apart from what comes before it. */
function isSound(
  file: string,
  header: SegmentHeader | undefined,
  runs: readonly Run[],
  losses: readonly LostLine[],
  isNewest: boolean,
): boolean {
  const [run] = runs;
  if (header === undefined || losses.length > 0 || runs.length > 1) return false;
  if (run === undefined ? !isNewest : run.first !== header.first) return false;
  return file.endsWith(segmentPath("", header.first));
}

function readLines(file: string, bytes: Buffer, previous: number, check: CheckPayload) {
  const runs: Run[] = [];
  const losses: LostLine[] = [];
  const cursor = new RecordCursor();
  let header: SegmentHeader | undefined;
  let last = previous;
  for (let start = 0, end = 0; start < bytes.length; start = end + 1) {
    const found = bytes.indexOf(newline, start);
    end = found === -1 ? bytes.length : found;
    if (start === 0 && bytes.toString("latin1", 0, 8) === "journal ") {
      const read = decodeHeader(bytes.toString("latin1", 0, end));
      if (typeof read !== "string") {
        header = read;
        continue;
      }
      if (read.startsWith("format version")) throw new Error(`${file}: ${read}`);
    }
    const problem = cursor.read(bytes, start, end) ?? problemOf(cursor, bytes, end, last, check);
    if (problem !== undefined) {
      const text = bytes.toString("utf8", start, Math.min(end, start + 300));
      losses.push({ file, offset: start, bytes: end - start, reason: problem, text });
      continue;
    }
    const run = runs.at(-1);
    // A record at the end without its line end gets one when it is rewritten, so it is a run of its own.
    if (run !== undefined && run.last + 1 === cursor.seq && run.end === start && found !== -1) {
      runs[runs.length - 1] = { ...run, last: cursor.seq, end: end + 1 };
    } else {
      runs.push({ first: cursor.seq, last: cursor.seq, start, end: end + 1 });
    }
    last = cursor.seq;
  }
  return { header, runs, losses };
}

function problemOf(
  { seq, payloadStart }: RecordCursor,
  bytes: Buffer,
  end: number,
  last: number,
  check: CheckPayload,
): string | undefined {
  if (seq <= last) return `record ${seq} comes after record ${last}`;
  try {
    check(bytes.toString("utf8", payloadStart, end));
    return undefined;
  } catch (error) {
    if (error instanceof NewerVersionError) throw new Error(`record ${seq} is ${error.message}.`, { cause: error });
    return `record ${seq} makes no sense: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/**
 * Carries out a plan. Each file that changes stays beside its replacement as FILE`suffix`. If interrupted at any point,
 * it can be planned and carried out again.
 * @returns the files that were kept aside
 */
export async function carryOut(folder: string, { rewrites }: SalvagePlan, suffix: string): Promise<readonly string[]> {
  const aside: string[] = [];
  for (const { file, runs, previous } of rewrites) {
    const bytes = await readFile(file);
    await link(file, file + suffix);
    aside.push(file + suffix);
    let before = previous;
    let isReplaced = false;
    for (const { first, last, start, end } of runs) {
      const path = segmentPath(folder, first);
      const lines = bytes.toString("utf8", start, end);
      const text = encodeHeader({ first, previous: before }) + lines + (lines.endsWith("\n") ? "" : "\n");
      await writeFileAtomic(path, text, { mode: 0o600, syncFolder: false });
      isReplaced ||= path === file;
      before = last;
    }
    if (!isReplaced) await unlink(file);
  }
  await syncFolder(folder);
  return aside;
}
