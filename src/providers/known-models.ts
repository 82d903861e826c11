/** The names of models that are known, from the config and from what providers list. */
export interface KnownModels {
  /**
   * The known name that was probably meant by one that is not known itself: it differs only by case, or by white space
   * or characters without a glyph around it. Undefined where the name is known, or like none.
   */
  nearest(name: string): string | undefined;
}

/**
 * Remembers the names. A server that folds case or trims would take one of these spellings for the model itself, which
 * is priced and limited by another name.
 *
 * @param configured names in the config; globs among them are passed over
 * @param listed what the providers are known to serve; another array after each change
 */
export function createKnownModels(configured: readonly string[], listed: () => readonly string[]): KnownModels {
  let indexed: readonly string[] | undefined;
  let names: ReadonlySet<string> = new Set();
  let byFold: ReadonlyMap<string, string> = new Map();

  function index(): void {
    const latest = listed();
    if (latest === indexed) return;
    indexed = latest;
    names = new Set([...configured.filter((name) => !name.includes("*")), ...latest]);
    // The first of several that fold to the same is the config's.
    byFold = new Map([...names].reverse().map((name) => [fold(name), name]));
  }

  return {
    nearest(name) {
      index();
      return names.has(name) ? undefined : byFold.get(fold(name));
    },
  };
}

/** White space, and what is not seen: format and control characters. */
const unseen = /^[\p{White_Space}\p{C}]$/u;

/** The name without what is not seen around it, and without case. */
function fold(name: string): string {
  const letters = Array.from(name);
  let start = 0;
  let end = letters.length;
  while (start < end && unseen.test(letters[start] ?? "")) start++;
  while (end > start && unseen.test(letters[end - 1] ?? "")) end--;
  // Some letters have several small forms and only one capital: there and back is what all of them have in common.
  return letters.slice(start, end).join("").toUpperCase().toLowerCase();
}
