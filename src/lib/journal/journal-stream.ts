import { constants, statSync } from "node:fs";
import { type FileHandle, open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline, Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { createGunzip } from "node:zlib";
import { fileErrorCode } from "../files/file-ops.ts";
import { decodeHeader, maxRecordBytes, RecordCursor } from "./journal-format.ts";

/** A record of a journal. */
interface JournalLine {
  readonly seq: number;
  readonly payload: string;
}

/** How far a journal has been read. */
export interface JournalPosition {
  /** The number in the file's name. */
  readonly file: string;
  /** Of the file, decompressed, up to the end of a line. */
  readonly bytes: number;
  /** Of the last record before it. */
  readonly seq: number;
}

/** A part of a journal. */
export type JournalPiece =
  | { readonly kind: "records"; readonly records: readonly JournalLine[] }
  /**
   * Something cannot be read. What follows on it is read all the same.
   * `isTorn`: it is an interrupted write at the very end, which was never acknowledged.
   */
  | { readonly kind: "damage"; readonly path: string; readonly message: string; readonly isTorn?: true }
  /** Records `first` to `last` are in no file. The oldest ones have been removed where `first` is 1. */
  | { readonly kind: "gap"; readonly first: number; readonly last: number }
  /** Comes last, unless there is no file: what is written later begins here. */
  | { readonly kind: "end"; readonly position: JournalPosition };

const chunkBytes = 64 << 10;
const newline = 10;
/** A write of a running process ends within this time, in ms. */
const writeMs = 100;

/**
 * Reads all files of a journal and of its archives, oldest record first, up to what has been written by the first call of
 * next(). Changes nothing, and may run beside the process that writes the journal, moves its files to an archive,
 * compresses them there or removes the oldest. Holds some hundred kilobytes. What cannot be read is named in its place, and
 * the rest follows. Throws Node's errors if a folder cannot be read.
 *
 * @param folders the journal's, then the archives', in the order in which files move
 * @param after where an earlier reading has ended: only what follows is read
 */
export async function* streamJournal(
  folders: readonly string[],
  after?: JournalPosition,
): AsyncGenerator<JournalPiece> {
  const end = await endOf(folders);
  if (end === undefined) return;
  const reader = new PieceReader(after?.seq);
  let before = "";
  let position = after;
  for (;;) {
    const files = [...(await filesOf(folders))].filter(
      ([name]) => name > before && name <= end.name && name >= (after?.file ?? ""),
    );
    const [name, path] = files.sort(([a], [b]) => (a < b ? -1 : 1))[0] ?? [];
    if (name === undefined || path === undefined) {
      if (position !== undefined) yield { kind: "end", position };
      return;
    }
    const isLast = name === end.name;
    const start = name === after?.file ? after.bytes : 0;
    let handle: FileHandle;
    try {
      handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    } catch (error) {
      // It has been moved, compressed or removed: the next look will tell.
      if (fileErrorCode(error) === "ENOENT") continue;
      yield { kind: "damage", path, message: `cannot be opened: ${messageOf(error)}` };
      before = name;
      continue;
    }
    try {
      const span = { start, end: isLast ? end.bytes : Infinity };
      position = yield* reader.readFile(path, name, { start, chunks: chunksOf(handle, path, span) });
      if (isLast && reader.tornBytes > 0 && (await staysTorn(path, end.bytes))) {
        const message = `its last ${reader.tornBytes} bytes are an interrupted write`;
        yield { kind: "damage", path, message, isTorn: true };
      }
    } finally {
      await handle.close();
    }
    before = name;
  }
}

/** The files by their numbers. */
async function filesOf(folders: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const files = new Map<string, string>();
  // In this order: a file that moves meanwhile is seen at least once.
  for (const folder of folders) {
    const names = await readdir(folder).catch((error: unknown) => {
      if (fileErrorCode(error) === "ENOENT") return [];
      throw error;
    });
    // A plain file comes last, and wins: a compressed one beside it may be new.
    for (const name of names.sort().reverse()) {
      const number = journalFileName.exec(name)?.[1];
      if (number !== undefined) files.set(number, join(folder, name));
    }
  }
  return files;
}

/** The name of a journal file, perhaps compressed; its first group is the number of the first record. */
export const journalFileName = /^(\d{16})\.journal(?:\.gz)?$/;

/** The newest file, and how much of it there is. */
async function endOf(
  folders: readonly string[],
): Promise<{ readonly name: string; readonly bytes: number } | undefined> {
  for (;;) {
    const [newest] = [...(await filesOf(folders))].sort(([a], [b]) => (a < b ? 1 : -1));
    if (newest === undefined) return undefined;
    const [name, path] = newest;
    try {
      // Not in another thread: there, half of a write by this process could be seen.
      return { name, bytes: path.endsWith(".gz") ? Infinity : statSync(path).size };
    } catch (error) {
      if (fileErrorCode(error) !== "ENOENT") throw error;
    }
  }
}

/** Whether what is at the end of the newest file is no write of a running process. */
async function staysTorn(path: string, bytes: number): Promise<boolean> {
  await sleep(writeMs);
  try {
    return (await stat(path)).size === bytes;
  } catch {
    return false;
  }
}

/** The content of a file, decompressed, between two offsets. */
function chunksOf(
  handle: FileHandle,
  path: string,
  { start, end }: { readonly start: number; readonly end: number },
): AsyncIterable<Buffer> {
  if (!path.endsWith(".gz")) return readChunks(handle, start, end);
  const gunzip = createGunzip({ chunkSize: chunkBytes });
  // An error is thrown where it is read.
  pipeline(Readable.from(readChunks(handle, 0, Infinity)), gunzip, () => undefined);
  return start === 0 ? gunzip : without(gunzip, start);
}

/** All but the first bytes. */
async function* without(chunks: AsyncIterable<Buffer>, bytes: number): AsyncGenerator<Buffer> {
  let left = bytes;
  for await (const chunk of chunks) {
    if (chunk.length > left) yield chunk.subarray(left);
    left = Math.max(0, left - chunk.length);
  }
}

async function* readChunks(handle: FileHandle, start: number, end: number): AsyncGenerator<Buffer> {
  for (let done = start; done < end;) {
    const length = Math.min(chunkBytes, end - done);
    const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(length), 0, length, done);
    if (bytesRead === 0) return;
    done += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

/** Reads one file after another, and notices what is missing in between. */
class PieceReader {
  readonly #cursor = new RecordCursor();
  /** Number of the newest record so far; undefined before the first file. */
  #last: number | undefined;
  #offset = 0;
  /** The first damage of the file, and how many of its lines can't be read. */
  #damage: string | undefined;
  #badLines = 0;
  #pieces: JournalPiece[] = [];
  #records: JournalLine[] = [];
  /** Bytes behind the last line end of the file that was read last. */
  tornBytes = 0;

  /** @param last number of the newest record that was read before */
  constructor(last: number | undefined) {
    this.#last = last;
  }

  /** @param content `chunks` begin at the offset `start` of the file */
  async *readFile(
    path: string,
    number: string,
    { start, chunks }: { readonly start: number; readonly chunks: AsyncIterable<Buffer> },
  ): AsyncGenerator<JournalPiece, JournalPosition> {
    this.#begin(start);
    let rest: Buffer = Buffer.alloc(0);
    try {
      for await (const chunk of chunks) {
        rest = this.#readLines(rest.length === 0 ? chunk : Buffer.concat([rest, chunk]), Number(number));
        if (rest.length > maxRecordBytes) {
          this.#bad("no line is that long");
          this.#offset += rest.length;
          rest = Buffer.alloc(0);
        }
        yield* this.#taken();
      }
    } catch (error) {
      this.#bad(`the rest cannot be read: ${messageOf(error)}`);
    }
    this.tornBytes = rest.length;
    if (this.#offset === 0 && rest.length > 0 && this.#damage === undefined) {
      this.#bad("the file ends in its header");
      this.#last ??= Number(number) - 1;
    }
    if (this.#damage !== undefined) {
      const more = this.#badLines > 1 ? `; ${this.#badLines} lines cannot be read` : "";
      this.#pieces.push({ kind: "damage", path, message: `${this.#damage}${more}` });
    }
    yield* this.#taken();
    return { file: number, bytes: this.#offset, seq: this.#last ?? Number(number) - 1 };
  }

  #begin(start: number): void {
    this.#offset = start;
    this.#damage = undefined;
    this.#badLines = 0;
    this.tornBytes = 0;
  }

  #taken(): readonly JournalPiece[] {
    this.#flush();
    const pieces = this.#pieces;
    this.#pieces = [];
    return pieces;
  }

  #flush(): void {
    if (this.#records.length > 0) this.#pieces.push({ kind: "records", records: this.#records });
    this.#records = [];
  }

  /** Returns what is behind the last line end. */
  #readLines(bytes: Buffer, first: number): Buffer {
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(newline, start);
      if (end === -1) return bytes.subarray(start);
      if (this.#offset === 0) this.#readHeader(bytes.toString("latin1", start, end), first);
      else this.#readRecord(bytes, start, end);
      this.#offset += end + 1 - start;
      start = end + 1;
    }
  }

  #readHeader(line: string, first: number): void {
    const header = decodeHeader(line);
    if (typeof header === "string") {
      this.#bad(header);
      this.#last ??= first - 1;
      return;
    }
    if (header.previous > (this.#last ?? 0)) this.#missing(header.previous);
    // Numbers may be left out between two files.
    this.#last = header.first - 1;
  }

  #readRecord(bytes: Buffer, start: number, end: number): void {
    const cursor = this.#cursor;
    const problem = cursor.read(bytes, start, end);
    if (problem !== undefined) {
      this.#bad(problem);
      return;
    }
    const { seq } = cursor;
    const last = this.#last ?? seq - 1;
    if (seq <= last) {
      this.#bad(`record ${seq} comes after record ${last}`);
      return;
    }
    if (seq > last + 1) this.#missing(seq - 1);
    this.#last = seq;
    this.#records.push({ seq, payload: bytes.toString("utf8", cursor.payloadStart, end) });
  }

  #missing(upTo: number): void {
    this.#flush();
    this.#pieces.push({ kind: "gap", first: (this.#last ?? 0) + 1, last: upTo });
  }

  #bad(reason: string): void {
    this.#damage ??= `damaged at byte ${this.#offset}: ${reason}`;
    this.#badLines++;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
