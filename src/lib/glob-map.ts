import { globMatcher, moreLiteralFirst } from "./globs.ts";

/** Looks up a name in a table; undefined if nothing matches. */
export type GlobMap<V> = (name: string) => V | undefined;

/**
 * A table whose keys are names or globs. If several match, the name itself wins over a glob, then the glob with more
 * literal characters, then the first one.
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
