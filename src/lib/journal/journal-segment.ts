import { constants } from "node:fs";
import type { FileOps } from "../files/file-ops.ts";
import { encodeHeader, type SegmentHeader } from "./journal-format.ts";

/** The journal refused a record: it is not in the journal. */
export class JournalError extends Error {
  override readonly name = "JournalError";
  /** True if nothing can be appended to the existing files any more. */
  readonly final: boolean;

  constructor(what: string, cause?: unknown, final = false) {
    super(cause instanceof Error ? `${what}: ${cause.message}` : what, { cause });
    this.final = final;
  }
}

/** The journal file that is being written. */
export interface SegmentFile {
  readonly path: string;
  readonly fd: number;
  readonly first: number;
  /** Bytes of complete lines. */
  size(): number;
  /**
   * Appends bytes[0, length) in one write. Throws JournalError, with the file unchanged; it is final if the file could
   * not be restored.
   */
  append(bytes: Uint8Array, length: number): void;
}

/** Starts a new journal file. Throws JournalError, leaving nothing that would disturb recovery. */
export function createSegmentFile(ops: FileOps, path: string, header: SegmentHeader): SegmentFile {
  const bytes = Buffer.from(encodeHeader(header));
  let fd: number;
  try {
    // No record has this number yet, so an existing file of this name is from a failed attempt, hence O_TRUNC.
    const { O_WRONLY, O_CREAT, O_TRUNC, O_APPEND, O_NOFOLLOW } = constants;
    fd = ops.openSync(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW, 0o600);
  } catch (cause) {
    throw new JournalError("no new journal file could be begun", cause);
  }
  let size = 0;

  function append(chunk: Uint8Array, length: number): void {
    try {
      const written = ops.writeSync(fd, chunk, 0, length);
      if (written !== length) throw new Error(`only ${written} of ${length} bytes were written`);
    } catch (cause) {
      try {
        ops.ftruncateSync(fd, size);
      } catch (cut) {
        throw new JournalError("a half-written record could not be cut away", cut, true);
      }
      throw new JournalError("the journal could not be written", cause);
    }
    size += length;
  }

  try {
    append(bytes, bytes.length);
  } catch (error) {
    discard(ops, fd, path);
    throw error;
  }
  return { path, fd, first: header.first, size: () => size, append };
}

function discard(ops: FileOps, fd: number, path: string): void {
  try {
    ops.closeSync(fd);
    ops.unlinkSync(path);
  } catch {
    // The next attempt overwrites the file, and recovery accepts one that ends inside its header.
  }
}
