/** Smallest buffer that is made, in bytes, where nobody knows how much will come. */
const smallest = 1024;
/** Bytes that are set aside at once on somebody's word that they will come. */
const trusted = 64 << 10;

/**
 * Collects bytes that arrive in pieces in a single buffer. A list of the pieces would take a hundred times the memory
 * where each is of one byte: every piece is an object, and keeps the whole read alive that it came with.
 */
export class GrowingBuffer {
  readonly #max: number;
  #bytes: Buffer;
  #length = 0;

  /**
   * @param max bytes that it takes
   * @param expected bytes that are said to come; 0 where that is not known
   */
  constructor(max: number, expected = 0) {
    this.#max = expected > 0 ? Math.min(max, expected) : max;
    this.#bytes = Buffer.allocUnsafe(Math.min(expected, max, trusted));
  }

  /** Adds a copy of a piece; false, with nothing added, where it would be too much. */
  push(piece: Buffer): boolean {
    const length = this.#length + piece.length;
    if (length > this.#max) return false;
    if (length > this.#bytes.length) this.#grow(length);
    piece.copy(this.#bytes, this.#length);
    this.#length = length;
    return true;
  }

  /** Bytes that have come so far. */
  get length(): number {
    return this.#length;
  }

  /** All that has come so far. What is added afterwards changes nothing of it. */
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
