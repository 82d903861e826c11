import { TwinSearch, type Path } from "./twin-pattern.ts";

/** Objects that are parsed whole before it pays to look for what they have in common. */
const skipped = 15;

/**
 * Parses JSON objects that come one after the other and differ, as the tokens of an answer do, in one text alone: four
 * times as fast as JSON.parse, with the same results.
 *
 * Objects that it returns share parts with one another: they are for reading.
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
