const quote = 0x22;
const backslash = 0x5c;
/** No text of an answer; where one has it, no pattern is found, and nothing else. */
const marker = "\u0001 the text that differs \u0001";
/** Looking for a pattern costs as much as a few objects: not for a short answer, and not again and again. */
const firstAttempt = 16;
const lastAttempt = 24;
const needsParsing = /["\\\u0000-\u001f]/;
/** What may follow a backslash and is over with it: all but `u`. */
const shortEscapes = Buffer.from('"\\/bfnrt');

export type Path = readonly (string | number)[];

/** What JSON objects have in common that differ in one text alone. */
export class TwinPattern {
  /** With a marker for the text. */
  readonly object: unknown;
  /** Where in the object the text is. */
  readonly path: Path;
  /** With the opening quote; as latin1, a character for each byte. */
  readonly #prefix: string;
  /** From the closing quote on. */
  readonly #suffix: string;

  constructor(prefix: Buffer, suffix: Buffer, object: unknown, path: Path) {
    this.#prefix = prefix.toString("latin1");
    this.#suffix = suffix.toString("latin1");
    this.object = object;
    this.path = path;
  }

  /** Whether bytes[start, end) are JSON that differs in the one text alone; perhaps false where the text has escapes. */
  fits(bytes: Buffer, start: number, end: number): boolean {
    const from = start + this.#prefix.length;
    const to = end - this.#suffix.length;
    return from <= to && this.#surrounds(bytes, start, from, to, end) && isPlainText(bytes, from, to);
  }

  /** The text that differs; undefined where something else does. */
  textIn(bytes: Buffer, start: number, end: number): string | undefined {
    const from = start + this.#prefix.length;
    const to = end - this.#suffix.length;
    if (from > to || !this.#surrounds(bytes, start, from, to, end)) return undefined;
    const text = bytes.toString("utf8", from, to);
    if (!needsParsing.test(text)) return text;
    try {
      return JSON.parse(`"${text}"`) as string;
    } catch {
      return undefined;
    }
  }

  /** As text of bytes, which takes half as long as Buffer.compare. */
  #surrounds(bytes: Buffer, start: number, from: number, to: number, end: number): boolean {
    return bytes.toString("latin1", start, from) === this.#prefix && bytes.toString("latin1", to, end) === this.#suffix;
  }
}

/** Finds the pattern of the objects that it is shown. */
export class TwinSearch {
  /** The last one that was found. */
  pattern: TwinPattern | null = null;
  #last: Buffer | null = null;
  #shown = 0;

  /** Takes an object, bytes[start, end), that the pattern so far does not fit. */
  show(bytes: Buffer, start: number, end: number): void {
    this.#shown++;
    if (this.#shown < firstAttempt || this.#shown > lastAttempt) return;
    const last = this.#last;
    // A copy: the bytes are of the network's buffer, which would stay alive with them.
    this.#last = Buffer.from(bytes.subarray(start, end));
    if (last !== null) this.pattern = findPattern(last, this.#last) ?? this.pattern;
  }
}

/**
 * Guesses from two objects where the text is that differs, puts a marker there, and looks where JSON.parse finds the
 * marker: so the guess is proved before it is used.
 */
function findPattern(last: Buffer, bytes: Buffer): TwinPattern | null {
  const shorter = Math.min(last.length, bytes.length);
  let same = 0;
  while (same < shorter && last[same] === bytes[same]) same++;
  let sameEnd = 0;
  while (sameEnd < shorter - same && last[last.length - 1 - sameEnd] === bytes[bytes.length - 1 - sameEnd]) sameEnd++;
  if (same === 0) return null;
  const opening = bytes.lastIndexOf(quote, same - 1);
  const closing = bytes.indexOf(quote, Math.max(opening + 1, bytes.length - sameEnd));
  if (opening === -1 || closing === -1) return null;
  const prefix = bytes.subarray(0, opening + 1);
  const suffix = bytes.subarray(closing);
  try {
    const object: unknown = JSON.parse(
      `${prefix.toString()}${JSON.stringify(marker).slice(1, -1)}${suffix.toString()}`,
    );
    const path = pathOfMarker(object);
    return path === null ? null : new TwinPattern(prefix, suffix, object, path);
  } catch {
    return null;
  }
}

/** Where the marker is a value; null where it is nowhere. */
function pathOfMarker(value: unknown): Path | null {
  if (value === marker) return [];
  if (typeof value !== "object" || value === null) return null;
  for (const [key, inner] of Object.entries(value)) {
    // It could not be set on a copy.
    if (key === "__proto__") return null;
    const path = pathOfMarker(inner);
    if (path !== null) return [Array.isArray(value) ? Number(key) : key, ...path];
  }
  return null;
}

/** Whether bytes[from, to) may stand between the quotes of a JSON string; `\u` is not looked into, and refused. */
function isPlainText(bytes: Buffer, from: number, to: number): boolean {
  for (let pos = from; pos < to; pos++) {
    const byte = bytes[pos] ?? 0;
    if (byte === quote || byte < 0x20) return false;
    if (byte !== backslash) continue;
    pos++;
    if (pos === to || !shortEscapes.includes(bytes[pos] ?? 0)) return false;
  }
  return true;
}
