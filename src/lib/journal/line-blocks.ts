import type { TextFile } from "../files/text-file.ts";

/** Complete lines of a file, as they are in it, each with its line feed. */
export interface LineBlock {
  /** Offset of the block in the file. */
  readonly start: number;
  readonly bytes: Buffer;
}

const blockBytes = 128 << 10;
const probeBytes = 4 << 10;
const lineFeed = 0x0a;

/**
 * Reads the lines that end at or before the offset `end`, as many as fit into 128 KB. A piece without any line feed
 * yields an empty block: no line is that long, so it is skipped. Start with the file's size and continue from `start`.
 */
export async function readLinesBefore(file: TextFile, end: number): Promise<LineBlock> {
  const from = Math.max(0, end - blockBytes);
  const bytes = await file.readAt(from, end - from);
  const last = bytes.lastIndexOf(lineFeed) + 1;
  // The line that began before the block is read with the next one.
  const first = from === 0 ? 0 : bytes.indexOf(lineFeed) + 1;
  if (first < last) return { start: from + first, bytes: bytes.subarray(first, last) };
  // The only line feed ends a line that began before: read that next, unless it fills a block by itself.
  const goOnAt = last > 0 && from + last < end ? from + last : from;
  return { start: goOnAt, bytes: Buffer.alloc(0) };
}

/**
 * Finds, by binary search, an offset after all lines whose value is at most `limit`, with few others before it. It may
 * be in the middle of a line. Lines must be ordered by value; if only roughly, add the maximum disorder to `limit`.
 *
 * @param valueOf the value of a line without its line feed; NaN for a broken one, which is skipped
 */
export async function findEndOfLinesUpTo(
  file: TextFile,
  size: number,
  limit: number,
  valueOf: (line: string) => number,
): Promise<number> {
  let low = 0;
  let high = size;
  while (high - low > probeBytes) {
    const middle = low + Math.floor((high - low) / 2);
    const probe = await file.readAt(middle, Math.min(probeBytes, high - middle));
    if (firstValue(probe, valueOf) > limit) high = middle;
    else low = middle;
  }
  // At `high` a line above the limit was found, by looking ahead for its start.
  return Math.min(size, high + probeBytes);
}

/** The value of the first complete line after the piece's first line feed; -Infinity if there is none. */
function firstValue(piece: Buffer, valueOf: (line: string) => number): number {
  let start = piece.indexOf(lineFeed) + 1;
  while (start > 0) {
    const end = piece.indexOf(lineFeed, start);
    if (end < 0) break;
    const value = valueOf(piece.toString("latin1", start, end));
    if (!Number.isNaN(value)) return value;
    start = end + 1;
  }
  return -Infinity;
}
