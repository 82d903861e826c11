/** Shorter pieces that two texts have in common are words of everyday language, not quotes. */
const quoteLength = 12;
const hashBase = 0x01000193;
/** What the first character of a piece has grown to when the piece is complete. */
const firstFactor = Array.from({ length: quoteLength - 1 }).reduce<number>((power) => Math.imul(power, hashBase), 1);

/** Size of the table that tells most other pieces at once, a power of two. */
const tableSize = 1 << 16;
/** Most characters of a value that are searched: nobody may hold up the others by long prompts that providers refuse. */
const maxSearched = 1 << 18;

/**
 * A text with "[quoted]" for every piece of at least 12 characters that is also in a text anywhere in a JSON value.
 * Takes time in proportion to the value, however often it repeats itself; "[not shown]" if the value is too long to be
 * searched.
 * @param text short: all its pieces are held in memory
 */
export function withoutQuotes(text: string, value: unknown): string {
  if (text.length < quoteLength) return text;
  const pieces = new Pieces(text);
  let left = maxSearched;
  for (const source of textsIn(value)) {
    left -= source.length;
    if (left < 0) return "[not shown]";
    pieces.findIn(source);
  }
  return replaceMarked(text, pieces.isFound);
}

/** The pieces of a text, and which of its characters belong to those that were found. */
class Pieces {
  readonly isFound: Uint8Array;
  readonly #text: string;
  /** Where the pieces are that have not been met, by hash. */
  readonly #startsByHash = new Map<number, number[]>();
  readonly #table = new Uint8Array(tableSize);

  constructor(text: string) {
    this.#text = text;
    this.isFound = new Uint8Array(text.length);
    let hash = 0;
    for (let end = 0; end < text.length; end++) {
      hash = nextHash(hash, text, end);
      if (end < quoteLength - 1) continue;
      this.#table[hash & (tableSize - 1)] = 1;
      const starts = this.#startsByHash.get(hash) ?? [];
      starts.push(end - quoteLength + 1);
      this.#startsByHash.set(hash, starts);
    }
  }

  findIn(source: string): void {
    let hash = 0;
    for (let end = 0; end < source.length; end++) {
      hash = nextHash(hash, source, end);
      if (end >= quoteLength - 1 && this.#table[hash & (tableSize - 1)] === 1) this.#compare(hash, source, end);
    }
  }

  #compare(hash: number, source: string, end: number): void {
    const starts = this.#startsByHash.get(hash);
    if (starts === undefined) return;
    // Compared once, the same or not: a source that repeats the piece a million times costs no more.
    this.#startsByHash.delete(hash);
    const piece = source.slice(end - quoteLength + 1, end + 1);
    for (const at of starts) if (this.#text.startsWith(piece, at)) this.isFound.fill(1, at, at + quoteLength);
  }
}

/** The hash of the piece that ends here, from the hash of the one before. */
function nextHash(hash: number, text: string, end: number): number {
  const before = end - quoteLength;
  const rest = before < 0 ? hash : hash - Math.imul(text.charCodeAt(before), firstFactor);
  return (Math.imul(rest, hashBase) + text.charCodeAt(end)) | 0;
}

/** All texts in a JSON value, keys apart, at any depth. */
function* textsIn(value: unknown): Generator<string> {
  const left = [value];
  while (left.length > 0) {
    const next = left.pop();
    if (typeof next === "string") yield next;
    else if (typeof next === "object" && next !== null) for (const inner of Object.values(next)) left.push(inner);
  }
}

function replaceMarked(text: string, isMarked: Uint8Array): string {
  let result = "";
  for (let at = 0; at < text.length; at++) {
    if (isMarked[at] === 0) result += text.charAt(at);
    else if (at === 0 || isMarked[at - 1] === 0) result += "[quoted]";
  }
  return result;
}
