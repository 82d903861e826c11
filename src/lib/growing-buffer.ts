/** Smallest initial buffer, in bytes, if the length is unknown. */
const smallest = 1024;
/** Maximum bytes to allocate at once for an announced length. */
const trusted = 64 << 10;

/**
 * Collects bytes that arrive in pieces in a single buffer. A list of pieces would take a hundred times the memory if
 * each is a single byte: every piece is an object, and keeps alive the whole read that it came with.
 */
export class GrowingBuffer {
  readonly #max: number;
  #bytes: Buffer;
  #length = 0;

  /**
   * @param max maximum number of bytes
   * @param expected announced number of bytes; 0 if unknown
   */
  constructor(max: number, expected = 0) {
    this.#max = expected > 0 ? Math.min(max, expected) : max;
    this.#bytes = Buffer.allocUnsafe(Math.min(expected, max, trusted));
  }

  /** Appends a copy of a piece; returns false, with nothing appended, if it would exceed the maximum. */
  push(piece: Buffer): boolean {
    const length = this.#length + piece.length;
    if (length > this.#max) return false;
    if (length > this.#bytes.length) this.#grow(length);
    piece.copy(this.#bytes, this.#length);
    this.#length = length;
    return true;
  }

  /** Bytes received so far. */
  get length(): number {
    return this.#length;
  }

  /** All bytes so far. Later pieces don't change the result. */
  take(): Buffer {
    return this.#length === this.#bytes.length ? this.#bytes : this.#bytes.subarray(0, this.#length);
  }

  #grow(length: number): void {
    const grown = Buffer.allocUnsafe(
      Math.max(Math.min(2 * this.#bytes.length, this.#max), length, Math.min(smallest, this.#max)),
    );
    this.#bytes.copy(grown, 0, 0, this.#length);
    this.#bytes = grown;
  }
}
