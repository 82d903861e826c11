import { globMatcher, moreLiteralFirst } from "./globs.ts";

/** Finds what a table says of a name; undefined where it says nothing. */
export type GlobMap<V> = (name: string) => V | undefined;

/**
 * A table whose keys are names or globs. Of several that match, the name itself wins over a glob, then the glob with
 * more literal characters, then the one that comes first.
 */
export function createGlobMap<V>(table: Readonly<Record<string, V>>): GlobMap<V> {
  const entries = Object.entries(table);
  const names = new Map(entries.filter(([key]) => !key.includes("*")));
  const globs = entries
    .filter(([key]) => key.includes("*"))
    .sort(([a], [b]) => moreLiteralFirst(a, b))
    .map(([glob, value]) => ({ matches: globMatcher(glob), value }));
  return (name) => names.get(name) ?? globs.find(({ matches }) => matches(name))?.value;
}
