const quote = 0x22;
/** No text of an answer; where one has it, no pattern is found, and nothing else. */
const marker = "\u0001 the text that differs \u0001";
/** Looking for a pattern costs as much as a few objects: not for a short answer, and not again and again. */
const firstAttempt = 16;
const lastAttempt = 24;
const needsParsing = /["\\\u0000-\u001f]/;

type Path = readonly (string | number)[];

/** Where the one text is that differs, and all that is around it. */
interface Pattern {
  /** With the opening quote. */
  readonly prefix: Buffer;
  /** From the closing quote on. */
  readonly suffix: Buffer;
  /** The object with the marker for the text. */
  readonly object: unknown;
  readonly path: Path;
}

/**
 * Parses JSON objects that come one after the other and differ, as the tokens of an answer do, in one text alone: four
 * times as fast as JSON.parse, with the same results. From two objects it guesses where that text is, puts a marker
 * there, and looks where JSON.parse finds the marker: so the guess is proved before it is used.
 *
 * Objects that it returns share parts with one another: they are for reading.
 */
export class TwinParser {
  #last: Buffer | null = null;
  #pattern: Pattern | null = null;
  /** Objects that were parsed whole. */
  #whole = 0;

  /** As JSON.parse of bytes[start, end) in UTF-8. Throws SyntaxError as it does. */
  parse(bytes: Buffer, start: number, end: number): unknown {
    const pattern = this.#pattern;
    if (pattern !== null) {
      const text = textBetween(pattern, bytes, start, end);
      if (text !== undefined) return withText(pattern.object, pattern.path, 0, text);
    }
    const parsed: unknown = JSON.parse(bytes.toString("utf8", start, end));
    this.#whole++;
    if (this.#whole >= firstAttempt && this.#whole <= lastAttempt) this.#learn(bytes.subarray(start, end));
    return parsed;
  }

  #learn(bytes: Buffer): void {
    const last = this.#last;
    // A copy: the bytes are of the network's buffer, which would stay alive with them.
    this.#last = Buffer.from(bytes);
    if (last === null) return;
    this.#pattern = findPattern(last, this.#last) ?? this.#pattern;
  }
}

function findPattern(last: Buffer, bytes: Buffer): Pattern | null {
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
    return path === null ? null : { prefix, suffix, object, path };
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

/** The text that differs; undefined where something else does. */
function textBetween({ prefix, suffix }: Pattern, bytes: Buffer, start: number, end: number): string | undefined {
  const from = start + prefix.length;
  const to = end - suffix.length;
  if (from > to) return undefined;
  if (suffix.compare(bytes, to, end) !== 0 || prefix.compare(bytes, start, from) !== 0) return undefined;
  const text = bytes.toString("utf8", from, to);
  if (!needsParsing.test(text)) return text;
  try {
    return JSON.parse(`"${text}"`) as string;
  } catch {
    return undefined;
  }
}

/** The object with another text at the path; what is not on the way is shared. */
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
