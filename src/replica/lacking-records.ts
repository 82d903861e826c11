import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../lib/files/atomic-file.ts";
import { fileErrorCode } from "../lib/files/file-ops.ts";
import { readJsonFile } from "../lib/files/json-file.ts";
import { journalFileName, type JournalPosition, streamJournal } from "../lib/journal/journal-stream.ts";
import type { RecordedPiece } from "../quota/ledger.ts";

/**
 * A place in the journal of a copy where records are missing that the others have: what is used was copied from Redis
 * there, without the records that led to it.
 */
interface Lack {
  /** The number of the last record before it. */
  readonly after: number;
  /** Whether all of the time before is in doubt: the copy was made new. Else this process had been away for too long. */
  readonly isStart: boolean;
  /** When it was noted, in ms since the epoch; 0 in files of versions before 0.3. */
  readonly at: number;
}

const fileName = ".lacking-records.json";
const fileSchema = z.array(z.object({ after: z.int().min(0), isStart: z.boolean(), at: z.int().min(0).default(0) }));
/** More are one: all of the time before the newest of those that go is then in doubt. */
const mostLacks = 100;

/** Where the records of a users folder are not all; nowhere, unless its process has shared its state in Redis. */
export function readLacks(usersDir: string): Promise<readonly Lack[]> {
  return readJsonFile(join(usersDir, fileName), fileSchema, []);
}

/** The time before which records may be missing, in ms since the epoch; null: none are, or the time is not known. */
export async function missingBefore(usersDir: string): Promise<number | null> {
  const latest = Math.max(0, ...(await readLacks(usersDir)).map(({ at }) => at));
  return latest === 0 ? null : latest;
}

/**
 * Remembers that records are missing behind the newest one of the journal, which must not grow meanwhile. On disk when it
 * resolves. Throws Node's errors.
 * @param at ms since the epoch
 */
export async function noteLack(usersDir: string, isStart: boolean, at: number): Promise<void> {
  const after = await newestOf(join(usersDir, "journal"));
  const before = (await readLacks(usersDir)).filter((lack) => lack.after < after);
  const all = isStart ? [{ after, isStart, at }] : [...before, { after, isStart, at }];
  const [first, ...rest] = all.slice(-mostLacks);
  const lacks = first === undefined || all.length <= mostLacks ? all : [{ ...first, isStart: true }, ...rest];
  await writeFileAtomic(join(usersDir, fileName), `${JSON.stringify(lacks)}\n`);
}

/** The number of the newest record; 0 if there is none. */
async function newestOf(folder: string): Promise<number> {
  const names = await readdir(folder).catch((error: unknown) => {
    if (fileErrorCode(error) === "ENOENT") return [];
    throw error;
  });
  const file = names
    .flatMap((name) => journalFileName.exec(name)?.[1] ?? [])
    .sort()
    .at(-1);
  if (file === undefined) return 0;
  let seq = Number(file) - 1;
  for await (const piece of streamJournal([folder], { file, bytes: 0, seq })) {
    if (piece.kind === "end") ({ seq } = piece.position);
  }
  return seq;
}

/**
 * The pieces of a journal with a piece of the kind `lack` in each of those places: right before the next record, or at the
 * end where the reading is a whole one.
 *
 * @param after where an earlier reading has ended, as streamJournal takes it
 */
export async function* withLacks(
  pieces: AsyncIterable<RecordedPiece>,
  lacks: readonly Lack[],
  after?: JournalPosition,
): AsyncGenerator<RecordedPiece> {
  let due = lacks.filter((lack) => lack.after >= (after?.seq ?? 0));
  const upTo = function* (seq: number): Generator<RecordedPiece> {
    for (const { isStart } of due.filter((lack) => lack.after < seq)) yield { kind: "lack", isStart };
    due = due.filter((lack) => lack.after >= seq);
  };
  for await (const piece of pieces) {
    if (piece.kind === "gap" && piece.first === 1) due = due.filter((lack) => lack.after > piece.last);
    if (piece.kind === "end" && after === undefined) yield* upTo(Infinity);
    if (piece.kind !== "records" || due.length === 0) {
      yield piece;
      continue;
    }
    let from = 0;
    for (const [index, { seq }] of piece.records.entries()) {
      const found = [...upTo(seq)];
      if (found.length === 0) continue;
      if (index > from) yield { kind: "records", records: piece.records.slice(from, index) };
      yield* found;
      from = index;
    }
    yield { kind: "records", records: piece.records.slice(from) };
  }
  if (after === undefined) yield* upTo(Infinity);
}
