import { isDeepStrictEqual } from "node:util";
import { parse, stringify } from "smol-toml";
import { editTomlLines } from "./toml-lines.ts";

/** Top-level keys to set; undefined removes the key. */
export type TomlChanges = Readonly<Record<string, unknown>>;

/** Parses TOML; integers past 2^53 become bigints, so that nothing is rounded. Throws smol-toml's TomlError. */
export function parseToml(text: string): Record<string, unknown> {
  return parse(text, { integersAsBigInt: "asNeeded" });
}

/**
 * Changes top-level keys in a TOML text and leaves every other byte as it was, comments included. Works line by line
 * and then checks, by parsing, that the change is the one intended and nothing else; where it is not (an odd spelling of
 * the key, text in a string that looks like TOML) the whole text is written anew, without its comments.
 *
 * @throws TomlError where the text does not parse; Error where a value cannot be written as TOML
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
