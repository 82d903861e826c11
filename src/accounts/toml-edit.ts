import { isDeepStrictEqual } from "node:util";
import { parse, stringify } from "smol-toml";

/** Top-level keys to set; undefined removes the key. */
export type TomlChanges = Readonly<Record<string, unknown>>;

/** Parses TOML; integers past 2^53 become bigints, so that nothing is rounded. Throws smol-toml's TomlError. */
export function parseToml(text: string): Record<string, unknown> {
  return parse(text, { integersAsBigInt: "asNeeded" });
}

/**
 * Changes top-level keys in a TOML text and leaves every other byte as it was, comments included. Works line by line
 * and then checks, by parsing, that the change is the one intended and nothing else; where it is not (a value over
 * several lines, an odd spelling of the key) the whole text is written anew, without its comments.
 *
 * @throws TomlError where the text does not parse; Error where a value cannot be written as TOML
 */
export function editToml(text: string, changes: TomlChanges): string {
  const wanted = parseToml(text);
  const rendered = new Map<string, string>();
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) {
      Reflect.deleteProperty(wanted, key);
      continue;
    }
    const line = stringify({ [key]: value });
    rendered.set(key, line.trim());
    wanted[key] = parseToml(line)[key];
  }
  const edited = editLines(text, Object.keys(changes), rendered);
  if (edited !== undefined && isSame(edited, wanted)) return edited;
  const rewritten = stringify(wanted);
  if (!isSame(rewritten, wanted)) throw new Error("this cannot be written as TOML without a loss");
  return rewritten;
}

function editLines(text: string, keys: readonly string[], rendered: ReadonlyMap<string, string>): string | undefined {
  const lines = text.split("\n");
  const added = keys.filter((key) => rendered.has(key) && lineOf(lines, key) < 0);
  for (const key of keys) {
    const at = lineOf(lines, key);
    if (at < 0) continue;
    // A new key takes the place of one that goes: password_hash stands where password stood.
    const assignment = rendered.get(key) ?? rendered.get(added.shift() ?? "");
    if (assignment === undefined) lines.splice(at, 1);
    else lines[at] = withValue(lines[at] ?? "", assignment, rendered.has(key));
  }
  if (added.length > 0) {
    // After the name, which every file has and which cannot be inside a table.
    const at = lineOf(lines, "username");
    if (at < 0) return undefined;
    const end = lines[at]?.endsWith("\r") ? "\r" : "";
    lines.splice(at + 1, 0, ...added.map((key) => `${rendered.get(key) ?? ""}${end}`));
  }
  return lines.join("\n");
}

/** The first line that looks like `key = value`, before any table; -1 where there is none. */
function lineOf(lines: readonly string[], key: string): number {
  const end = lines.findIndex((line) => /^[ \t]*\[/.test(line));
  const assignment = new RegExp(`^[ \\t]*(${key}|"${key}"|'${key}')[ \\t]*=`);
  return (end < 0 ? lines : lines.slice(0, end)).findIndex((line) => assignment.test(line));
}

/** One line with another assignment; indentation and line end stay, the comment only where the key is the same. */
function withValue(line: string, assignment: string, keepComment: boolean): string {
  const indent = /^[ \t]*/.exec(line)?.[0] ?? "";
  const end = line.endsWith("\r") ? "\r" : "";
  const value = /^[^=]*=[ \t]*(?:"(?:[^"\\]|\\.)*"|'[^']*'|\[(?:[^\]"']|"[^"\\]*"|'[^']*')*\]|[^\s#"'[{]+)/;
  const rest = line.slice(value.exec(line)?.[0].length ?? line.length).trimEnd();
  return `${indent}${assignment}${keepComment ? rest : ""}${end}`;
}

function isSame(text: string, wanted: object): boolean {
  try {
    return isDeepStrictEqual(parseToml(text), wanted);
  } catch {
    return false;
  }
}
