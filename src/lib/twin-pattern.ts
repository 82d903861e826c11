const quote = 0x22;
const backslash = 0x5c;
/** Never occurs in a response; if it does, no pattern is found, and nothing else happens. */
const marker = "\u0001 the text that differs \u0001";
/** Searching for a pattern costs as much as parsing a few objects: not again and again. */
const maxAttempts = 8;
const needsParsing = /["\\\u0000-\u001f]/;
/** What may follow a backslash as a complete escape: all but `u`. */
const shortEscapes = Buffer.from('"\\/bfnrt');

export type Path = readonly (string | number)[];

/** The common parts of JSON objects that differ in a single text. */
export class TwinPattern {
  /** With a marker in place of the text. */
  readonly object: unknown;
  /** The path of the text in the object. */
  readonly path: Path;
  /** Up to and including the opening quote; as latin1, one character per byte. */
  readonly #prefix: string;
  /** From the closing quote on. */
  readonly #suffix: string;

  constructor(prefix: string, suffix: string, object: unknown, path: Path) {
    this.#prefix = prefix;
    this.#suffix = suffix;
    this.object = object;
    this.path = path;
  }

  /**
   * UTF-8 bytes of the differing text, if bytes[start, end) are JSON that differs only in it; -1 otherwise, and
   * possibly if the text has escapes.
   */
  textBytesIn(bytes: Buffer, start: number, end: number): number {
    const from = start + this.#prefix.length;
    const to = end - this.#suffix.length;
    return from <= to && this.#surrounds(bytes, start, from, to, end) ? plainTextBytes(bytes, from, to) : -1;
  }

  /** The JSON with this text, which must need no escapes. */
  jsonWith(text: string): Buffer {
    return Buffer.from(this.#prefix + text + this.#suffix, "latin1");
  }

  /** The differing text; undefined if anything else differs. */
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

  /** Compares as text of bytes, which takes half as long as Buffer.compare. */
  #surrounds(bytes: Buffer, start: number, from: number, to: number, end: number): boolean {
    return bytes.toString("latin1", start, from) === this.#prefix && bytes.toString("latin1", to, end) === this.#suffix;
  }
}

/** Searches for the pattern of the given objects. */
export class TwinSearch {
  /** The latest pattern found. */
  pattern: TwinPattern | null = null;
  readonly #skipped: number;
  /** As latin1, which releases the network's buffer. */
  #last: string | null = null;
  #shown = 0;

  /** @param skipped objects to skip before searching: for a short response it would not pay off */
  constructor(skipped: number) {
    this.#skipped = skipped;
  }

  /** Adds an object, bytes[start, end), that the current pattern does not match. */
  show(bytes: Buffer, start: number, end: number): void {
    const attempt = this.#shown - this.#skipped;
    if (attempt > maxAttempts) return;
    this.#shown++;
    if (attempt < 0) return;
    const json = bytes.toString("latin1", start, end);
    if (this.#last !== null) this.pattern = findPattern(this.#last, json) ?? this.pattern;
    this.#last = attempt === maxAttempts ? null : json;
  }
}

/**
 * Guesses from two objects where the differing text is, checks that both have a text there and nothing else, puts a
 * marker there, and checks where JSON.parse finds the marker: so the guess is proved before it is used. Both are UTF-8
 * as latin1.
 */
function findPattern(last: string, json: string): TwinPattern | null {
  const shorter = Math.min(last.length, json.length);
  let same = 0;
  while (same < shorter && last.charCodeAt(same) === json.charCodeAt(same)) same++;
  let sameEnd = 0;
  while (sameEnd < shorter - same && last.at(-1 - sameEnd) === json.at(-1 - sameEnd)) sameEnd++;
  if (same === 0) return null;
  const opening = json.lastIndexOf('"', same - 1);
  const closing = json.indexOf('"', Math.max(opening + 1, json.length - sameEnd));
  if (opening === -1 || closing === -1) return null;
  const prefix = json.slice(0, opening + 1);
  const suffix = json.slice(closing);
  const differing = [last, json].map((each) => each.slice(prefix.length, each.length - suffix.length));
  try {
    // Both must be one text there: objects that differ in more could leave another object with the marker in between.
    for (const text of differing) JSON.parse(`"${utf8(text)}"`);
    const object: unknown = JSON.parse(`${utf8(prefix)}${JSON.stringify(marker).slice(1, -1)}${utf8(suffix)}`);
    const path = pathOfMarker(object);
    return path === null ? null : new TwinPattern(prefix, suffix, object, path);
  } catch {
    return null;
  }
}

function utf8(latin1: string): string {
  return Buffer.from(latin1, "latin1").toString();
}

/** The path at which the marker is a value; null if there is none. */
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

/**
 * Bytes of the text that bytes[from, to) encode between the quotes of a JSON string; -1 if they are invalid, or contain
 * a `\u`.
 */
function plainTextBytes(bytes: Buffer, from: number, to: number): number {
  let escapes = 0;
  for (let pos = from; pos < to; pos++) {
    const byte = bytes[pos] ?? 0;
    if (byte === quote || byte < 0x20) return -1;
    if (byte !== backslash) continue;
    pos++;
    if (pos === to || !shortEscapes.includes(bytes[pos] ?? 0)) return -1;
    escapes++;
  }
  return to - from - escapes;
}

/** Number of fully parsed objects before searching for a pattern pays off. */
const skipped = 15;

/**
 * Parses JSON objects that come one after another and differ, as the tokens of a response do, in a single text: four
 * times as fast as JSON.parse, with the same results.
 *
 * The returned objects share parts with one another: they must not be modified.
 */
export class TwinParser {
  readonly #search = new TwinSearch(skipped);

  /** As JSON.parse of bytes[start, end) in UTF-8. Throws SyntaxError as it does. */
  parse(bytes: Buffer, start: number, end: number): unknown {
    const { pattern } = this.#search;
    if (pattern !== null) {
      const text = pattern.textIn(bytes, start, end);
      if (text !== undefined) return withText(pattern.object, pattern.path, 0, text);
    }
    const parsed: unknown = JSON.parse(bytes.toString("utf8", start, end));
    this.#search.show(bytes, start, end);
    return parsed;
  }
}

/** The object with another text at the path; everything off the path is shared. */
function withText(value: unknown, path: Path, depth: number, text: string): unknown {
  const key = path[depth];
  if (key === undefined) return text;
  if (Array.isArray(value)) {
    const items: unknown[] = value.slice();
    items[Number(key)] = withText(items[Number(key)], path, depth + 1, text);
    return items;
  }
  const fields = { ...(value as Record<string, unknown>) };
  fields[key] = withText(fields[key], path, depth + 1, text);
  return fields;
}
