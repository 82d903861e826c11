import { crc32 } from "node:zlib";

/**
 * The text of a journal file. The first line is a header, each further line a record:
 *
 *     journal 1 first=17 previous=16 3f0c9a1e
 *     9ae0e1b2 17 PAYLOAD
 *
 * A record is the CRC-32 (8 hex digits) of all that follows it on its line, the sequence number, and the payload.
 * `first` is the number of the file's first record, `previous` that of the last record in the file before it (0 where
 * there was none); between the two, numbers may be left out, but never inside a file.
 */
const formatVersion = 1;

/** Something was written by a newer version of the program: no damage, and nothing that this version may repair. */
export class NewerVersionError extends Error {
  override readonly name = "NewerVersionError";

  /** @param known the newest version that this program knows */
  constructor(version: number, known: number) {
    super(
      `written by a newer version of the program: its format is ${version}, and this program knows formats up to ` +
        `${known}. Start the newer version again`,
    );
  }
}

/** Longest record in bytes, including its line end. */
export const maxRecordBytes = 64 * 1024;

const crcDigits = 8;
const bodyStart = crcDigits + 1;
const newline = 10;
const space = 32;
const zero = 48;
const letterA = 97;

/** The first line of a journal file. */
export interface SegmentHeader {
  readonly first: number;
  readonly previous: number;
}

/** A header with its line end. */
export function encodeHeader({ first, previous }: SegmentHeader): string {
  const body = `journal ${formatVersion} first=${first} previous=${previous}`;
  return `${body} ${hex(crc32(body))}\n`;
}

/** Parses a header without its line end. Returns an error text if it is invalid. */
export function decodeHeader(line: string): SegmentHeader | string {
  const version = /^journal (\d+) /.exec(line)?.[1];
  if (version !== undefined && Number(version) !== formatVersion) {
    return `format version ${version} is not known to this program, which knows ${formatVersion}`;
  }
  const match = /^(journal \d+ first=(\d{1,16}) previous=(\d{1,16})) ([0-9a-f]{8})$/.exec(line);
  if (match === null) return "the header is not one of a journal";
  const [, body = "", first, previous, sum] = match;
  if (hex(crc32(body)) !== sum) return "the header's checksum is wrong";
  return { first: Number(first), previous: Number(previous) };
}

/**
 * Writes a record with its line end to the start of `target`, which holds at least maxRecordBytes. Returns its length
 * in bytes. Throws RangeError if the payload contains a line end or is too long.
 */
export function encodeRecord(target: Buffer, seq: number, payload: string): number {
  const body = `${seq} ${payload}\n`;
  if (payload.includes("\n")) throw new RangeError("a journal record cannot hold a line end");
  // A UTF-16 unit takes at most 3 bytes, so short records need no exact count.
  if (body.length * 3 > maxRecordBytes - bodyStart && Buffer.byteLength(body) > maxRecordBytes - bodyStart) {
    throw new RangeError(`a journal record cannot be longer than ${maxRecordBytes} bytes`);
  }
  const end = bodyStart + target.write(body, bodyStart);
  let sum = crc32(target.subarray(bodyStart, end - 1));
  for (let at = crcDigits - 1; at >= 0; at--) {
    const digit = sum & 15;
    target[at] = digit < 10 ? zero + digit : letterA + digit - 10;
    sum >>>= 4;
  }
  target[crcDigits] = space;
  return end;
}

/** Parses records one after another, without creating an object for each. */
export class RecordCursor {
  /** The sequence number of the latest record. */
  seq = 0;
  /** The start of its payload. */
  payloadStart = 0;

  /** Parses the record in bytes[start, end), without its line end. Returns an error text if it is invalid. */
  read(bytes: Buffer, start: number, end: number): string | undefined {
    const body = start + bodyStart;
    if (end - start < bodyStart + 2 || bytes[body - 1] !== space) return "the line is not a record";
    if (crc32(bytes.subarray(body, end)) !== hexAt(bytes, start)) return "the checksum is wrong";
    let seq = 0;
    let at = body;
    for (; at < end && bytes[at] !== space; at++) {
      const digit = (bytes[at] ?? 0) - zero;
      if (digit < 0 || digit > 9) return "the sequence number is none";
      seq = seq * 10 + digit;
    }
    if (at === body || at === end) return "the line is not a record";
    this.seq = seq;
    this.payloadStart = at + 1;
    return undefined;
  }
}

/**
 * Whether the bytes after a file's last line end can be the remains of an interrupted write: the beginning of a line,
 * perhaps followed by NULs, which some file systems leave at power loss. A whole record can't be: its line end must
 * have been damaged, since a record is only acknowledged with its line end.
 */
export function isTornTail(tail: Buffer): boolean {
  let end = tail.length;
  while (end > 0 && tail[end - 1] === 0) end--;
  if (end > maxRecordBytes || tail.subarray(0, end).includes(newline)) return false;
  return end === 0 || new RecordCursor().read(tail, 0, end - 1) !== undefined;
}

function hex(sum: number): string {
  return sum.toString(16).padStart(crcDigits, "0");
}

/** 8 lower-case hex digits as a number; NaN if invalid. */
function hexAt(bytes: Buffer, start: number): number {
  let value = 0;
  for (let at = start; at < start + crcDigits; at++) {
    const byte = bytes[at] ?? 0;
    const digit =
      byte >= zero && byte <= 57 ? byte - zero : byte >= letterA && byte < letterA + 6 ? byte - letterA + 10 : NaN;
    value = value * 16 + digit;
  }
  return value;
}
