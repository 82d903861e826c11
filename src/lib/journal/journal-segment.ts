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
  /** The same without holding up the caller. One call at a time, and no `append` meanwhile. */
  appendLater(bytes: Uint8Array, length: number): Promise<void>;
}

// No record has this number yet, so an existing file of this name is from a failed attempt, hence O_TRUNC.
const { O_WRONLY, O_CREAT, O_TRUNC, O_APPEND, O_NOFOLLOW } = constants;
const newFile = O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW;

/** Starts a new journal file. Throws JournalError, leaving nothing that would disturb recovery. */
export function createSegmentFile(ops: FileOps, path: string, header: SegmentHeader): SegmentFile {
  const bytes = Buffer.from(encodeHeader(header));
  let fd: number;
  try {
    fd = ops.openSync(path, newFile, 0o600);
  } catch (cause) {
    throw new JournalError(notBegun, cause);
  }
  const file = segmentFile(ops, { path, fd, first: header.first });
  try {
    file.append(bytes, bytes.length);
  } catch (error) {
    discard(ops, fd, path);
    throw error;
  }
  return file;
}

/** The same without holding up the caller. */
export async function createSegmentFileLater(ops: FileOps, path: string, header: SegmentHeader): Promise<SegmentFile> {
  const bytes = Buffer.from(encodeHeader(header));
  let fd: number;
  try {
    fd = await ops.open(path, newFile, 0o600);
  } catch (cause) {
    throw new JournalError(notBegun, cause);
  }
  const file = segmentFile(ops, { path, fd, first: header.first });
  try {
    await file.appendLater(bytes, bytes.length);
  } catch (error) {
    discard(ops, fd, path);
    // Nothing of it is left that could disturb.
    throw new JournalError(notBegun, error);
  }
  return file;
}

const notBegun = "no new journal file could be begun";
const notWritten = "the journal could not be written";
const notCut = "a half-written record could not be cut away";

function segmentFile(ops: FileOps, file: Pick<SegmentFile, "path" | "fd" | "first">): SegmentFile {
  const { fd } = file;
  let size = 0;
  return {
    ...file,
    size: () => size,
    append(chunk, length) {
      try {
        const written = ops.writeSync(fd, chunk, 0, length);
        if (written !== length) throw new Error(`only ${written} of ${length} bytes were written`);
      } catch (cause) {
        try {
          ops.ftruncateSync(fd, size);
        } catch (cut) {
          throw new JournalError(notCut, cut, true);
        }
        throw new JournalError(notWritten, cause);
      }
      size += length;
    },
    async appendLater(chunk, length) {
      try {
        const written = await ops.write(fd, chunk, 0, length);
        if (written !== length) throw new Error(`only ${written} of ${length} bytes were written`);
      } catch (cause) {
        try {
          await ops.ftruncate(fd, size);
        } catch (cut) {
          throw new JournalError(notCut, cut, true);
        }
        throw new JournalError(notWritten, cause);
      }
      size += length;
    },
  };
}

function discard(ops: FileOps, fd: number, path: string): void {
  try {
    ops.closeSync(fd);
    ops.unlinkSync(path);
  } catch {
    // The next attempt overwrites the file, and recovery accepts one that ends inside its header.
  }
}
