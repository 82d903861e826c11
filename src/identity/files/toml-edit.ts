import { isDeepStrictEqual } from "node:util";
import { parse, stringify } from "smol-toml";

/** Top-level keys to set; undefined removes the key. */
export type TomlChanges = Readonly<Record<string, unknown>>;

/** Parses TOML; integers above 2^53 become bigints, so that nothing is rounded. Throws smol-toml's TomlError. */
export function parseToml(text: string): Record<string, unknown> {
  return parse(text, { integersAsBigInt: "asNeeded" });
}

/**
 * Changes top-level keys in a TOML text and leaves every other byte unchanged, including comments. Edits line by line
 * and then verifies, by parsing, that exactly the intended change was made; if not (an odd spelling of the key, text in
 * a string that looks like TOML) the whole text is rewritten, without its comments.
 *
 * @throws TomlError if the text does not parse; Error if a value cannot be written as TOML
 */
export function editToml(text: string, changes: TomlChanges): string {
  const wanted = parseToml(text);
  const values = new Map<string, unknown>();
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) {
      Reflect.deleteProperty(wanted, key);
      continue;
    }
    wanted[key] = parseToml(stringify({ [key]: value }))[key];
    values.set(key, wanted[key]);
  }
  const edited = editTomlLines(text, Object.keys(changes), values);
  if (edited !== undefined && isSame(edited, wanted)) return edited;
  const rewritten = stringify(wanted);
  if (!isSame(rewritten, wanted)) throw new Error("this cannot be written as TOML without a loss");
  return rewritten;
}

function isSame(text: string, wanted: object): boolean {
  try {
    return isDeepStrictEqual(parseToml(text), wanted);
  } catch {
    return false;
  }
}

const header = /^[ \t]*\[{1,2}[ \t]*(?:([\w-]+)|"([\w-]+)"|'([\w-]+)')[ \t]*[\].]/;
const assigns = /^[ \t]*(?:([\w-]+)|"([\w-]+)"|'([\w-]+)')[ \t]*=/;

/** No hand-written value is longer; each further line costs another parse. */
const maxValueLines = 100;

/**
 * Changes top-level keys line by line, as far as possible without understanding the whole text: the caller verifies the
 * result. A value written as `key = ...` stays so, on one line; one written as `[key]` or `[[key]]` stays such a
 * section; a new one is written inline after the name, so that nothing else has to move.
 *
 * @param keys the keys to change, in order
 * @param values their new values; keys without one are removed
 * @returns undefined if there is no place for a new key
 */
function editTomlLines(
  text: string,
  keys: readonly string[],
  values: ReadonlyMap<string, unknown>,
): string | undefined {
  const lines = text.split("\n");
  const inSections = new Set(keys.filter((key) => replaceSections(lines, key, values)));
  const added = keys.filter((key) => values.has(key) && !inSections.has(key) && lineOf(lines, key) < 0);
  for (const key of keys) {
    const at = lineOf(lines, key);
    if (at < 0) continue;
    // A new key takes the place of a removed one: password_hash replaces password.
    const written = values.has(key) ? key : added.shift();
    const length = extentOf(lines, at);
    if (written === undefined) lines.splice(at, length);
    else {
      const line = withValue(
        lines[at] ?? "",
        assignment(written, values.get(written)),
        length === 1 && written === key,
      );
      lines.splice(at, length, line);
    }
  }
  if (added.length > 0) {
    // After the name, which every file has and which cannot be inside a table.
    const at = lineOf(lines, "username");
    if (at < 0) return undefined;
    const end = endOf(lines[at]);
    lines.splice(at + 1, 0, ...added.map((key) => assignment(key, values.get(key)) + end));
  }
  return lines.join("\n");
}

/** `key = value` on one line, including tables and arrays of tables: TOML's writer would write these as sections. */
function assignment(key: string, value: unknown): string {
  const text = stringify({ [key]: [[value]] }).trim();
  const [opening, closing] = [" = [ [ ", " ] ]"];
  const at = text.indexOf(opening);
  return `${text.slice(0, at)} = ${text.slice(at + opening.length, -closing.length)}`;
}

/** Removes the sections of a key, and puts its value in their place if possible. Returns whether it did. */
function replaceSections(lines: string[], key: string, values: ReadonlyMap<string, unknown>): boolean {
  const sections = sectionsOf(lines, key);
  const [first] = sections;
  if (first === undefined) return false;
  const end = endOf(lines[first.start]);
  for (const { start, length } of sections.reverse()) lines.splice(start, length);
  const section = values.has(key) ? stringify({ [key]: values.get(key) }).trim() : "";
  if (!section.startsWith("[")) return false;
  lines.splice(first.start, 0, ...section.split("\n").map((line) => line + end));
  return true;
}

/** `[key]`, `[[key]]` and `[key.more]`, each without the comments and blank lines before the next header. */
function sectionsOf(lines: readonly string[], key: string) {
  return lines.flatMap((line, start) => {
    if (keyIn(line, header) !== key) return [];
    let end = lines.findIndex((other, at) => at > start && /^[ \t]*\[/.test(other));
    if (end < 0) end = lines.length;
    while (end > start + 1 && /^[ \t\r]*(#[^\n]*)?$/.test(lines[end - 1] ?? "")) end--;
    return [{ start, length: end - start }];
  });
}

/** The first line that looks like `key = value`, before any table; -1 if there is none. */
function lineOf(lines: readonly string[], key: string): number {
  const end = lines.findIndex((line) => /^[ \t]*\[/.test(line));
  return (end < 0 ? lines : lines.slice(0, end)).findIndex((line) => keyIn(line, assigns) === key);
}

/** The key of a line, quoted or not. */
function keyIn(line: string, pattern: RegExp): string | undefined {
  const [, bare, double, single] = pattern.exec(line) ?? [];
  return bare ?? double ?? single;
}

/** How many lines the assignment at a line takes. */
function extentOf(lines: readonly string[], at: number): number {
  for (let count = 1; count <= maxValueLines && at + count <= lines.length; count++) {
    if (isToml(lines.slice(at, at + count).join("\n"))) return count;
  }
  return 1;
}

function isToml(text: string): boolean {
  try {
    parse(text, { integersAsBigInt: "asNeeded" });
    return true;
  } catch {
    return false;
  }
}

/** A line with another assignment; indentation and line end stay, the comment only if the key is the same. */
function withValue(line: string, text: string, keepComment: boolean): string {
  const indent = /^[ \t]*/.exec(line)?.[0] ?? "";
  const value =
    /^[^=]*=[ \t]*(?:"(?:[^"\\]|\\.)*"|'[^']*'|\[(?:[^\]"']|"[^"\\]*"|'[^']*')*\]|\{(?:[^}"']|"[^"\\]*"|'[^']*')*\}|[^\s#"'[{]+)/;
  const rest = line.slice(value.exec(line)?.[0].length ?? line.length).trimEnd();
  return `${indent}${text}${keepComment ? rest : ""}${endOf(line)}`;
}

/** The carriage return of a CRLF line. */
function endOf(line: string | undefined): string {
  return line?.endsWith("\r") === true ? "\r" : "";
}
