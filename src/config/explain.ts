import type { z } from "zod";
import { configSchema } from "./schema.ts";

type Issue = z.core.$ZodIssue;

/** Keys under which people put secrets; none of them belongs in a config file. */
const secretKey = /^(api_?key|key|secret|secrets|jwt_?secrets?|password|token|access_token|redis_url)$/i;

/** Words in the names of other keys for secrets. What is counted is "tokens". */
const secretWord = /key|secret|password|token(?!s)/i;

/** Keys whose values are not quoted in messages: they may contain a secret. */
const secretValue = /key|secret|password|token|url/i;

/**
 * One line for each problem with a config: path, what was expected, and the actual value.
 * @param input the parsed TOML, for the actual values
 * @param lineOf the line of a path, named at the end; undefined if it isn't known
 */
export function explainIssues(
  issues: readonly Issue[],
  input: unknown,
  lineOf: (path: readonly string[]) => number | undefined = () => undefined,
): string[] {
  const at = (path: readonly string[]): string => {
    const line = lineOf(path);
    return line === undefined ? "" : ` (line ${line})`;
  };
  return issues.flatMap((issue) => explain(issue, input, at));
}

function explain(issue: Issue, input: unknown, at: (path: readonly string[]) => string): string[] {
  const path = issue.path.map(String);
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => unknownKey([...path, key], path) + at([...path, key]));
  const got = valueAt(input, path);
  const isText = typeof got === "string";
  const shown = isText && secretValue.test(path.at(-1) ?? "") ? `text of ${got.length} characters` : describe(got);
  const expected = typeof got === "bigint" && issue.code === "invalid_type" ? ofLargeNumber(issue) : expectation(issue);
  return [`${path.join(".")}: ${expected}, got ${shown}${at(path)}`];
}

/** A date that stands where a table belongs: zod takes it for a table without keys. */
export function datesAsTables(input: unknown): Issue[] {
  const issues: Issue[] = [];
  const look = (value: unknown, schema: unknown, path: readonly string[]): void => {
    const known = unwrap(schema);
    if (value instanceof Date) {
      const type = property(property(known, "def"), "type");
      const message = "expected a table";
      if (type === "object") issues.push({ code: "custom", path: [...path], message, input });
    } else if (typeof value === "object" && value !== null) {
      for (const [key, inner] of Object.entries(value)) look(inner, child(known, key), [...path, key]);
    }
  };
  look(input, configSchema, []);
  return issues;
}

function unknownKey(full: readonly string[], parent: readonly string[]): string {
  const name = full.join(".");
  const key = full.at(-1) ?? "";
  const nearest = nearestWord(key, knownKeys(parent));
  if (secretKey.test(key) || (nearest === undefined && secretWord.test(key))) {
    return `${name}: secrets don't belong in this file; set an environment variable (DEEPSEEK_API_KEY, JWT_SECRETS, …) or name one with api_key_env or api_key_file`;
  }
  return `${name}: unknown key${nearest === undefined ? "" : `; did you mean "${nearest}"?`}`;
}

/** A number that would have to be rounded is a bigint, which to zod is none. */
function ofLargeNumber(issue: Extract<Issue, { code: "invalid_type" }>): string {
  if (issue.expected !== "number" && issue.expected !== "int") return expectation(issue);
  return `expected a number from ${Number.MIN_SAFE_INTEGER} to ${Number.MAX_SAFE_INTEGER}`;
}

function expectation(issue: Issue): string {
  switch (issue.code) {
    case "invalid_type":
      return `expected ${typeNames[issue.expected] ?? issue.expected}`;
    case "too_small":
      return `expected ${issue.inclusive === true ? "at least" : "more than"} ${issue.minimum}${unit(issue.origin)}`;
    case "too_big":
      return `expected ${issue.inclusive === true ? "at most" : "less than"} ${issue.maximum}${unit(issue.origin)}`;
    case "invalid_value":
      return `expected ${issue.values.length > 1 ? "one of " : ""}${issue.values.map((value) => JSON.stringify(value)).join(", ")}`;
    case "invalid_union":
      return issue.message.startsWith("expected")
        ? issue.message
        : "expected an address such as 10.0.0.1 or a network such as 10.0.0.0/8";
    case "invalid_format":
      if (issue.message.startsWith("expected")) return issue.message;
      return issue.format === "regex" ? `expected ${issue.message}` : `expected a valid ${issue.format}`;
    case "invalid_key":
      return `expected another key: ${(issue.issues[0]?.message ?? issue.message).replace(/^expected /, "")}`;
    case "custom":
    case "invalid_element":
    case "not_multiple_of":
    case "unrecognized_keys":
      return issue.message.startsWith("expected") ? issue.message : `expected ${issue.message}`;
  }
}

/** Zod's type names in TOML's terms. */
const typeNames: Readonly<Partial<Record<string, string>>> = {
  array: "a list",
  boolean: "true or false",
  date: "a date",
  int: "a whole number",
  number: "a number",
  object: "a table",
  record: "a table",
  string: "text",
};

function unit(origin: string): string {
  return origin === "string" ? " characters" : origin === "array" ? " entries" : "";
}

function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "no date" : `the date ${value.toISOString()}`;
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "object") return "a table";
  if (typeof value === "string") return `text ${JSON.stringify(value.slice(0, 60))}`;
  if (typeof value === "bigint") return `number ${value}`;
  if (Number.isNaN(value)) return "nan";
  return typeof value === "number" || typeof value === "boolean" ? `${typeof value} ${value}` : typeof value;
}

function valueAt(input: unknown, path: readonly string[]): unknown {
  let value = input;
  for (const key of path) {
    if (typeof value !== "object" || value === null) return undefined;
    value = Object.hasOwn(value, key) ? Reflect.get(value, key) : undefined;
  }
  return value;
}

/** The keys that the schema knows below a path. */
function knownKeys(path: readonly string[]): string[] {
  let schema: unknown = configSchema;
  for (const key of path) schema = child(unwrap(schema), key);
  const shape = property(unwrap(schema), "shape");
  return typeof shape === "object" && shape !== null ? Object.keys(shape) : [];
}

function child(schema: unknown, key: string): unknown {
  const def = property(schema, "def");
  return property(property(schema, "shape"), key) ?? property(def, "element") ?? property(def, "valueType");
}

/** Unwraps defaults, optionals and the like to the schema inside. */
function unwrap(schema: unknown): unknown {
  const inner = property(property(schema, "def"), "innerType");
  return inner === undefined ? schema : unwrap(inner);
}

function property(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined;
}

/** Longer words are not compared: nobody mistypes them, and the work grows with the square. */
const LONGEST = 64;

/**
 * The known word that was probably meant, for "did you mean"; undefined if none is near. Ignores case. Near means that
 * at most a third of the longer word's letters, and always at least one, were inserted, omitted, changed or swapped
 * with their neighbour.
 */
export function nearestWord(word: string, known: readonly string[]): string | undefined {
  let nearest: string | undefined;
  let least = Infinity;
  if (word.length > LONGEST) return undefined;
  for (const candidate of known) {
    if (candidate.length > LONGEST) continue;
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    const allowed = Math.max(1, Math.floor(Math.max(word.length, candidate.length) / 3));
    if (distance <= allowed && distance < least) {
      nearest = candidate;
      least = distance;
    }
  }
  return nearest;
}

/** Damerau-Levenshtein (optimal string alignment): insertions, deletions, changes and swaps of neighbours. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const changed = at(last, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(changed, at(last, j) + 1, at(row, j - 1) + 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) best = Math.min(best, at(beforeLast, j - 2) + 1);
      row.push(best);
    }
    beforeLast = last;
    last = row;
  }
  return at(last, b.length);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Infinity;
}
