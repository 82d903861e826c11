/** The names of models that are known, from the config and from what providers list. */
export interface KnownModels {
  /**
   * The known name that an unknown one probably stands for: they differ only in case, or in white space or invisible
   * characters around the name. Undefined if the name is known or resembles none.
   */
  nearest(name: string): string | undefined;
}

/**
 * Remembers the names. A server that ignores case or trims would take such a spelling for the model itself, which is
 * priced and limited under its correct name.
 *
 * @param configured names in the config; globs are ignored
 * @param listed the models that the providers are known to serve; a new array after each change
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
    // If several fold to the same, the first one, from the config, counts.
    byFold = new Map([...names].reverse().map((name) => [fold(name), name]));
  }

  return {
    nearest(name) {
      index();
      return names.has(name) ? undefined : byFold.get(fold(name));
    },
  };
}

/** White space and invisible characters: format and control characters. */
const unseen = /^[\p{White_Space}\p{C}]$/u;

/** The name without white space and invisible characters around it, in one case. */
function fold(name: string): string {
  const letters = Array.from(name);
  let start = 0;
  let end = letters.length;
  while (start < end && unseen.test(letters[start] ?? "")) start++;
  while (end > start && unseen.test(letters[end - 1] ?? "")) end--;
  // Some letters have several lower-case forms for one capital: upper and then lower case maps them to the same.
  return letters.slice(start, end).join("").toUpperCase().toLowerCase();
}
