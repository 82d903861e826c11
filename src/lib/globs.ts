/** Longest name that a glob can match, in UTF-16 units. Globs from users are limited to this length as well. */
export const maxNameLength = 200;
/** Maximum number of stars in such a glob. */
export const maxStars = 10;

/** Half of a character of two units. UTF-8 has none: in files, all of them become one name. */
const loneSurrogate = /\p{Surrogate}/u;

/** Whether a value can be the name of a model. Call this before any other use of a name. */
export function isModelName(model: unknown): model is string {
  return typeof model === "string" && model !== "" && model.length <= maxNameLength && !loneSurrogate.test(model);
}

/**
 * Creates a test for a glob in which `*` stands for any run of characters and everything else for itself. Names longer
 * than maxNameLength never match. The text between two stars is searched once from left to right, so the work of a test
 * is bounded, whatever the glob and the name: both come from users.
 */
export function globMatcher(glob: string): (name: string) => boolean {
  const [head = "", ...rest] = glob.split("*");
  const tail = rest.pop();
  if (tail === undefined) return (name) => name === glob && name.length <= maxNameLength;
  const inner = rest.filter((piece) => piece !== "");
  return (name) => {
    const end = name.length - tail.length;
    if (name.length > maxNameLength || end < head.length || !name.startsWith(head) || !name.endsWith(tail)) {
      return false;
    }
    // The first match of a piece leaves the most room for the following ones, so no other need be tried.
    let from = head.length;
    for (const piece of inner) {
      const at = name.indexOf(piece, from);
      if (at < 0 || at + piece.length > end) return false;
      from = at + piece.length;
    }
    return true;
  };
}

/**
 * Orders globs by specificity, for sorting: a name without `*` first, then the one with more literal characters. 0 if
 * neither is more specific.
 */
export function moreLiteralFirst(a: string, b: string): number {
  return Number(a.includes("*")) - Number(b.includes("*")) || literalLength(b) - literalLength(a);
}

function literalLength(glob: string): number {
  return glob.length - starsOf(glob);
}

/** The number of stars in a glob. */
export function starsOf(glob: string): number {
  return glob.split("*").length - 1;
}

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

/** Whether a name is in a list of names and globs; every name is where there is no list. */
export function createAllowList(globs: readonly string[] | null | undefined): (name: string) => boolean {
  if (globs === null || globs === undefined) return () => true;
  const matchers = globs.map(globMatcher);
  return (name) => matchers.some((matches) => matches(name));
}
