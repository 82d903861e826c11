const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const COLON = 0x3a;
const DATA = Buffer.from("data");
const EVENT = Buffer.from("event");
const ID = Buffer.from("id");
const BYTE_ORDER_MARK = Buffer.from("\uFEFF");
const NONE = Buffer.alloc(0);
/** Smallest buffer, in bytes, for an event split by the end of a chunk. */
const SMALLEST_TAIL = 1024;

/** The content of the current line so far: nothing, only a carriage return, or anything else. */
type LineSeen = "nothing" | "return" | "text";

/**
 * Receives the scanner's results in the order of the stream: all ranges together are the input, byte for byte. Only the
 * bytes inside the ranges are meaningful. They are never changed afterwards, so they may be kept and written to a
 * socket without a copy. Errors of a sink are thrown by `push`.
 */
export interface SseSink {
  /**
   * A complete event with data. `event.subarray(start, end)` are its raw bytes including the blank line,
   * `data.subarray(dataStart, dataEnd)` its payload: `data === event` unless the payload spans several `data:` lines,
   * then it is a new buffer with the lines joined. `name` is the `event:` field, or "".
   */
  onEvent(
    event: Buffer,
    start: number,
    end: number,
    data: Buffer,
    dataStart: number,
    dataEnd: number,
    name: string,
  ): void;
  /** A block without data: comments, fields without data, stray blank lines. */
  onComment(event: Buffer, start: number, end: number): void;
}

/** An event exceeds the scanner's limit. The scanner can't be used afterwards. */
export class SseEventTooLargeError extends Error {
  override readonly name = "SseEventTooLargeError";
  /** The configured limit. */
  readonly maxEventBytes: number;

  constructor(maxEventBytes: number) {
    super(`an event is larger than ${maxEventBytes} bytes`);
    this.maxEventBytes = maxEventBytes;
  }
}

/**
 * Splits a byte stream into server-sent events, independent of the network's chunks. Lines end in LF or CRLF, also
 * mixed; a lone CR, which the standard allows and no provider sends, does not end a line.
 *
 * Complete events are passed on as ranges of the chunk itself. Only an event split by a chunk's end is copied, each of
 * its bytes once, and no byte is searched twice, so chunks of one byte cost linear time.
 */
export class SseScanner {
  /** Whether an event with data had an `id` field. */
  idsSeen = false;
  readonly #sink: SseSink;
  readonly #maxEventBytes: number;
  #tail: Buffer = NONE;
  #tailBytes = 0;
  #seen: LineSeen = "nothing";
  #lines = 0;
  #atStreamStart = true;

  constructor(sink: SseSink, maxEventBytes: number) {
    this.#sink = sink;
    this.#maxEventBytes = maxEventBytes;
  }

  /** Bytes of an incomplete event; more than 0 at the end of a stream means that it was cut off. */
  get pendingBytes(): number {
    return this.#tailBytes;
  }

  /**
   * Processes the next bytes and calls the sink for every block that they complete.
   * @throws SseEventTooLargeError regardless of chunk boundaries, and only after the preceding events were passed on.
   */
  push(chunk: Buffer): void {
    let start = 0;
    while (start < chunk.length) {
      const end = this.#findBlockEnd(chunk, start);
      if (end === -1) {
        this.#keep(chunk, start, chunk.length);
        return;
      }
      if (this.#tailBytes === 0) {
        if (end - start > this.#maxEventBytes) throw new SseEventTooLargeError(this.#maxEventBytes);
        this.#emit(chunk, start, end);
      } else {
        this.#keep(chunk, start, end);
        const event = this.#tail;
        const length = this.#tailBytes;
        // Released before it is passed on: the sink may keep it for long.
        this.#tail = NONE;
        this.#tailBytes = 0;
        this.#emit(event, 0, length);
      }
      start = end;
    }
  }

  /** The position after the next blank line, or -1. Continues where the previous chunk stopped. */
  #findBlockEnd(chunk: Buffer, from: number): number {
    let pos = from;
    while (pos < chunk.length) {
      // The blank line after an event is almost always here: checking costs less than an indexOf call.
      const lf = chunk[pos] === LF ? pos : chunk.indexOf(LF, pos);
      if (lf === -1) {
        const onlyReturn = this.#seen === "nothing" && pos === chunk.length - 1 && chunk[pos] === CR;
        this.#seen = onlyReturn ? "return" : "text";
        return -1;
      }
      const blank =
        this.#seen === "nothing"
          ? lf === pos || (lf === pos + 1 && chunk[pos] === CR)
          : this.#seen === "return" && lf === pos;
      this.#seen = "nothing";
      this.#lines++;
      pos = lf + 1;
      if (blank) return pos;
    }
    return -1;
  }

  /** Appends a piece of a split event to the previous ones. */
  #keep(chunk: Buffer, start: number, end: number): void {
    const length = this.#tailBytes + end - start;
    if (length > this.#maxEventBytes) throw new SseEventTooLargeError(this.#maxEventBytes);
    if (length > this.#tail.length) {
      const grown = Buffer.allocUnsafe(
        Math.min(Math.max(SMALLEST_TAIL, 2 * this.#tail.length, length), this.#maxEventBytes),
      );
      this.#tail.copy(grown, 0, 0, this.#tailBytes);
      this.#tail = grown;
    }
    chunk.copy(this.#tail, this.#tailBytes, start, end);
    this.#tailBytes = length;
  }

  #emit(event: Buffer, start: number, end: number): void {
    const lines = this.#lines;
    const first = this.#atStreamStart;
    this.#lines = 0;
    this.#atStreamStart = false;
    const oneLine = lines === 2 && event[start] === DATA[0];
    const dataStart = oneLine ? valueStart(event, start, end, DATA) : -1;
    if (dataStart === -1) {
      this.#emitLines(event, start, end, first);
      return;
    }
    let dataEnd = end - (event[end - 2] === CR ? 3 : 2);
    if (event[dataEnd - 1] === CR) dataEnd--;
    this.#sink.onEvent(event, start, end, event, dataStart, dataEnd, "");
  }

  /** The general case: any fields in any order. */
  #emitLines(event: Buffer, start: number, end: number, first: boolean): void {
    let dataStart = -1;
    let dataEnd = -1;
    let joined: Buffer | null = null;
    let name = "";
    let hasId = false;
    let pos = first && startsWith(event, start, BYTE_ORDER_MARK) ? start + BYTE_ORDER_MARK.length : start;
    while (pos < end) {
      const lf = event.indexOf(LF, pos);
      const lineEnd = lf > pos && event[lf - 1] === CR ? lf - 1 : lf;
      const valueAt = valueStart(event, pos, lineEnd, DATA);
      if (valueAt === -1) {
        const nameStart = valueStart(event, pos, lineEnd, EVENT);
        if (nameStart !== -1) name = event.toString("utf8", nameStart, lineEnd);
        else if (valueStart(event, pos, lineEnd, ID) !== -1) hasId = true;
      } else if (dataStart === -1) {
        dataStart = valueAt;
        dataEnd = lineEnd;
      } else {
        // Lines are joined in one buffer, since an event may have millions of them.
        if (joined === null) {
          joined = Buffer.allocUnsafe(end - start);
          dataEnd = event.copy(joined, 0, dataStart, dataEnd);
          dataStart = 0;
        }
        joined[dataEnd++] = LF;
        dataEnd += event.copy(joined, dataEnd, valueAt, lineEnd);
      }
      pos = lf + 1;
    }
    if (dataStart === -1) {
      this.#sink.onComment(event, start, end);
      return;
    }
    if (hasId) this.idsSeen = true;
    this.#sink.onEvent(event, start, end, joined ?? event, dataStart, dataEnd, name);
  }
}

/** The start of a line's value if its field is `field`, else -1. A field without a colon has an empty value. */
function valueStart(event: Buffer, pos: number, lineEnd: number, field: Buffer): number {
  const colon = pos + field.length;
  if (colon > lineEnd || !startsWith(event, pos, field)) return -1;
  if (colon === lineEnd) return lineEnd;
  if (event[colon] !== COLON) return -1;
  return event[colon + 1] === SPACE ? colon + 2 : colon + 1;
}

function startsWith(bytes: Buffer, pos: number, prefix: Buffer): boolean {
  for (let i = 0; i < prefix.length; i++) if (bytes[pos + i] !== prefix[i]) return false;
  return true;
}
