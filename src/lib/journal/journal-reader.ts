import { closeSync, constants, openSync, readSync } from "node:fs";
import { decodeHeader, isTornTail, NewerVersionError, RecordCursor, type SegmentHeader } from "./journal-format.ts";

const chunkBytes = 1 << 20;
const newline = 10;

/** A journal file has content that no interrupted write can explain. Nothing has been changed. */
export class JournalDamage extends Error {
  override readonly name = "JournalDamage";
  readonly file: string;
  /** Byte offset of the first bad line in the file. */
  readonly offset: number;
  readonly reason: string;

  constructor(file: string, offset: number, reason: string) {
    super(
      `${file}: damaged at byte ${offset}: ${reason}. The program does not start, because charges after this place ` +
        "would be lost. Restore the file from a backup, or give up only what cannot be read: " +
        "npm run journal -- repair shows what that is and keeps the damaged file beside the new one.",
    );
    this.file = file;
    this.offset = offset;
    this.reason = reason;
  }
}

/** The content of one journal file. */
export interface SegmentContent {
  /** undefined if the file ends inside its header. */
  readonly header: SegmentHeader | undefined;
  /** Number of the last record; the header's `previous` if there is no record. */
  readonly last: number;
  readonly records: number;
  /** Bytes up to the end of the last complete line. */
  readonly wholeBytes: number;
  /** Bytes after it: the remains of an interrupted write. */
  readonly tornBytes: number;
}

/** Handles a record; throws if the payload is invalid, which counts as damage but for a NewerVersionError. */
export type OnRecord = (seq: number, payload: string) => void;

/**
 * Reads one journal file from beginning to end in chunks, blocking, and passes each record to `onRecord`. Throws
 * JournalDamage for anything but complete lines and a torn tail, NewerVersionError for records of a newer version, and
 * Node's errors if the file can't be read.
 */
export function readSegment(path: string, onRecord: OnRecord): SegmentContent {
  // A symlink could make a later truncation hit a foreign file.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const reader = new SegmentReader(path, onRecord);
    const chunk = Buffer.allocUnsafe(chunkBytes);
    for (let held = 0; ;) {
      const read = readSync(fd, chunk, held, chunk.length - held, null);
      const filled = chunk.subarray(0, held + read);
      if (read === 0) return reader.end(filled);
      const used = reader.lines(filled);
      held = filled.length - used;
      if (held === chunk.length) throw reader.damage("no line is that long");
      chunk.copyWithin(0, used, filled.length);
    }
  } finally {
    closeSync(fd);
  }
}

class SegmentReader {
  readonly #path: string;
  readonly #onRecord: OnRecord;
  readonly #cursor = new RecordCursor();
  #header: SegmentHeader | undefined;
  #last = 0;
  #records = 0;
  #offset = 0;

  constructor(path: string, onRecord: OnRecord) {
    this.#path = path;
    this.#onRecord = onRecord;
  }

  damage(reason: string): JournalDamage {
    return new JournalDamage(this.#path, this.#offset, reason);
  }

  /** Handles all complete lines; returns their number of bytes. */
  lines(bytes: Buffer): number {
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(newline, start);
      if (end === -1) return start;
      if (this.#header === undefined) this.#readHeader(bytes.toString("latin1", start, end));
      else this.#readRecord(bytes, start, end, this.#header);
      this.#offset += end + 1 - start;
      start = end + 1;
    }
  }

  /** Handles the rest at the end of the file. */
  end(tail: Buffer): SegmentContent {
    if (!isTornTail(tail)) throw this.damage("the last line has no end, and is not what an interrupted write leaves");
    return {
      header: this.#header,
      last: this.#last,
      records: this.#records,
      wholeBytes: this.#offset,
      tornBytes: tail.length,
    };
  }

  #readHeader(line: string): void {
    const header = decodeHeader(line);
    if (typeof header === "string") throw this.damage(header);
    this.#header = header;
    this.#last = header.previous;
  }

  #readRecord(bytes: Buffer, start: number, end: number, header: SegmentHeader): void {
    const cursor = this.#cursor;
    const problem = cursor.read(bytes, start, end);
    if (problem !== undefined) throw this.damage(problem);
    const expected = this.#records === 0 ? header.first : this.#last + 1;
    if (cursor.seq !== expected) throw this.damage(`record ${cursor.seq} where ${expected} is due`);
    try {
      this.#onRecord(cursor.seq, bytes.toString("utf8", cursor.payloadStart, end));
    } catch (error) {
      if (error instanceof NewerVersionError) {
        throw new Error(`${this.#path}: record ${cursor.seq} is ${error.message}.`, { cause: error });
      }
      throw this.damage(
        `record ${cursor.seq} makes no sense: ${error instanceof Error ? error.message : String(error)}`,
      );
    }
    this.#last = cursor.seq;
    this.#records++;
  }
}
