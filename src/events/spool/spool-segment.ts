import { type FileHandle, open } from "node:fs/promises";
import { constants } from "node:fs";
import { maxRecordBytes, RecordCursor } from "../../lib/journal/journal-format.ts";

/** Why a reader never gets an event. A closed set, safe as a metric label. */
export const lossReasons = [
  /** Dropped unread, to stay below the limit. */
  "spool_full",
  /** The disk did not take it. */
  "disk",
  /** A record of the spool could not be read. */
  "damaged",
  /** Longer than a record may be. */
  "too_large",
  /** Emitted after the spool was closed. */
  "closed",
  /** What it was sent to refuses it for good. */
  "refused",
  /** Removed from a Redis Stream before all of its consumer groups had acknowledged it. */
  "trimmed",
] as const;
export type LossReason = (typeof lossReasons)[number];

/** A file of the spool. */
export interface SpoolSegment {
  readonly path: string;
  readonly first: number;
  /** Number of the last record; of the current file it grows. */
  last: number;
  /** Bytes of complete lines; of the current file they grow. */
  bytes: number;
}

/** An event as it stands in the spool. */
export interface SpoolRecord {
  readonly seq: number;
  /** The envelope as JSON. */
  readonly text: string;
}

/** A place in a file: all records before it have been read. */
interface Progress {
  /** Number of the latest record; that before the first one at the start. */
  seq: number;
  /** Bytes read. */
  offset: number;
}

/** A file of the spool that is read from its beginning, while it may still be written. */
export interface SegmentScan {
  readonly seq: () => number;
  readonly offset: () => number;
  /**
   * The next records with numbers above `after`, from at most 256 KB. Lines that are no records are skipped. Empty if
   * there is no complete line before `end`; `isDone` says so. Rejects with Node's errors.
   *
   * @param end offset in bytes up to which the file is complete
   */
  next(after: number, end: number): Promise<{ readonly records: readonly SpoolRecord[]; readonly isDone: boolean }>;
  close(): Promise<void>;
}

const chunkBytes = 4 * maxRecordBytes;
const newline = 10;

/** Opens a file of the spool. Rejects with Node's errors, ELOOP for a symlink. */
export async function openSegment(path: string, first: number): Promise<SegmentScan> {
  const file: FileHandle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  const cursor = new RecordCursor();
  const chunk = Buffer.allocUnsafe(chunkBytes);
  const progress: Progress = { seq: first - 1, offset: 0 };

  /** Reads the records among complete lines; returns the bytes of these lines. */
  function readLines(bytes: Buffer, after: number, records: SpoolRecord[]): number {
    let start = 0;
    for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, start)) {
      // The header is no record either.
      if (cursor.read(bytes, start, end) === undefined && cursor.seq > progress.seq) {
        progress.seq = cursor.seq;
        if (cursor.seq > after) {
          records.push({ seq: cursor.seq, text: bytes.toString("utf8", cursor.payloadStart, end) });
        }
      }
      start = end + 1;
    }
    return start;
  }

  return {
    seq: () => progress.seq,
    offset: () => progress.offset,
    async next(after, end) {
      const wanted = Math.min(chunk.length, end - progress.offset);
      if (wanted <= 0) return { records: [], isDone: true };
      const { bytesRead } = await file.read(chunk, 0, wanted, progress.offset);
      const records: SpoolRecord[] = [];
      const used = readLines(chunk.subarray(0, bytesRead), after, records);
      // No line is that long: the rest of such a piece is damage.
      progress.offset += used === 0 && bytesRead === chunk.length ? bytesRead : used;
      return { records, isDone: used === 0 && bytesRead < chunk.length };
    },
    close: () => file.close(),
  };
}
