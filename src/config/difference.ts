import { isDeepStrictEqual } from "node:util";
import { scrubSecrets } from "../lib/secret-text.ts";
import { isTable, maskValue } from "./masked.ts";

/** One value that differs between two configs, with secrets masked; undefined where there is none. */
export interface ConfigChange {
  /** As in error messages: `quota.tiers.basic.requests`, `providers.deepseek.weight`. */
  readonly path: string;
  readonly before: unknown;
  readonly after: unknown;
}

/**
 * Everything that differs between two configs, in the order of the keys. Entries of lists go by their name, if they
 * have one.
 */
export function configDifference(before: object, after: object): readonly ConfigChange[] {
  const changes: ConfigChange[] = [];
  compare([], before, after, changes);
  return changes;
}

/** Most changes that are shown one by one, and the longest value, in characters of its JSON. */
const maxShown = 200;
const maxValueLength = 500;

/** The changes for a log or a response: the first ones, with long values shortened. */
export function shownChanges(changes: readonly ConfigChange[]): readonly ConfigChange[] {
  return changes
    .slice(0, maxShown)
    .map(({ path, before, after }) => ({ path, before: shortened(before), after: shortened(after) }));
}

/** As JSON can hold it: null where there is no value. */
function shortened(value: unknown): unknown {
  if (value === undefined) return null;
  const json = JSON.stringify(value);
  return json.length <= maxValueLength ? value : `${json.slice(0, maxValueLength)}...`;
}

function compare(path: readonly string[], before: unknown, after: unknown, to: ConfigChange[]): void {
  if (isDeepStrictEqual(before, after)) return;
  const [old, next] = [childrenOf(before), childrenOf(after)];
  if (old !== undefined && next !== undefined) {
    for (const key of new Set([...old.keys(), ...next.keys()]))
      compare([...path, key], old.get(key), next.get(key), to);
    return;
  }
  const key = path.findLast((part) => !/^\d+$/.test(part)) ?? "";
  to.push({ path: scrubSecrets(path.join(".")), before: maskValue(key, before), after: maskValue(key, after) });
}

/** The parts that are compared one by one: those of a table, and the tables of a list. Undefined for a single value. */
function childrenOf(value: unknown): ReadonlyMap<string, unknown> | undefined {
  if (isTable(value)) return new Map(Object.entries(value));
  if (!Array.isArray(value) || !value.every(isTable)) return undefined;
  const names = value.map(({ name }, index) => (typeof name === "string" ? name : String(index)));
  const keys = new Set(names).size === names.length ? names : names.map((_name, index) => String(index));
  return new Map(keys.map((key, index) => [key, value[index]]));
}
