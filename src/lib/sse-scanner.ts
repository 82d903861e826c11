const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const COLON = 0x3a;
const DATA = Buffer.from("data");
const EVENT = Buffer.from("event");
const ID = Buffer.from("id");
const BYTE_ORDER_MARK = Buffer.from("\uFEFF");
const NONE = Buffer.alloc(0);
/** Smallest buffer, in bytes, for an event that is cut by the end of a chunk. */
const SMALLEST_TAIL = 1024;

/** What has been seen of the current line: nothing, a carriage return and no more, or anything else. */
type LineSeen = "nothing" | "return" | "text";

/**
 * Takes what the scanner finds, in the order of the stream: all ranges together are the input, byte for byte.
 * Only the bytes inside the ranges mean anything. They are never changed afterwards, so they may be kept and written
 * to a socket without a copy. What a sink throws comes out of `push`.
 */
export interface SseSink {
  /**
   * A complete event that has data. `event.subarray(start, end)` are its raw bytes with the blank line,
   * `data.subarray(dataStart, dataEnd)` its payload: `data === event` unless the payload spans several `data:` lines,
   * then it is a fresh buffer with the lines joined. `name` is the `event:` field, or "".
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
  /** A block without data: comments, lone fields, stray blank lines. */
  onComment(event: Buffer, start: number, end: number): void;
}

/** An event is larger than the scanner was told to take. The scanner is of no use after it. */
export class SseEventTooLargeError extends Error {
  override readonly name = "SseEventTooLargeError";
  /** The limit that was passed. */
  readonly maxEventBytes: number;

  constructor(maxEventBytes: number) {
    super(`an event is larger than ${maxEventBytes} bytes`);
    this.maxEventBytes = maxEventBytes;
  }
}

/**
 * Cuts a byte stream into server-sent events, wherever the network has cut it. Lines end in LF or CRLF, also mixed;
 * a lone CR, which the standard allows and no provider sends, does not end a line.
 *
 * Whole events are handed on as ranges of the chunk itself. Only an event that a chunk's end cuts is copied, each of
 * its bytes once, and no byte is searched twice, so that slices of one byte cost linear time.
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

  /** Bytes of an event whose end has not come yet; more than 0 at the end of a stream means that it was cut. */
  get pendingBytes(): number {
    return this.#tailBytes;
  }

  /**
   * Takes the next bytes and calls the sink for every block that they complete.
   * @throws SseEventTooLargeError wherever the cuts are, and only after the events before it were handed on.
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
        // Let go of before it is handed on: the sink may hold it for long.
        this.#tail = NONE;
        this.#tailBytes = 0;
        this.#emit(event, 0, length);
      }
      start = end;
    }
  }

  /** The position after the next blank line, or -1. Goes on where the chunk before it stopped. */
  #findBlockEnd(chunk: Buffer, from: number): number {
    let pos = from;
    while (pos < chunk.length) {
      // The blank line after an event is nearly always here: looking costs less than a call of indexOf.
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

  /** Copies a piece of a cut event to those before it. */
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
        // Lines are joined in one buffer, for an event may have millions of them.
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

/** Where the value of a line begins if its field is `field`, else -1. A field without a colon has an empty value. */
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
