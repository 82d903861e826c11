/** No name that the proxy reads is longer. */
const longestName = 32;

/**
 * A key as seen by parsers that ignore case, such as Go's: to those the long s and the Kelvin sign are an s and a k.
 */
export function foldCase(key: string): string {
  return key.toUpperCase().toLowerCase();
}

/**
 * The first key of an object that is none of the names, but that a parser may confuse with one: because of its case, or
 * because the parser stops at a NUL.
 */
export function findDisguised(
  object: Readonly<Record<string, unknown>>,
  names: ReadonlySet<string>,
): { readonly key: string; readonly name: string } | undefined {
  for (const key in object) {
    if (names.has(key)) continue;
    const nul = key.indexOf("\0");
    const written = nul === -1 ? key : key.slice(0, nul);
    if (written.length > longestName) continue;
    const name = foldCase(written);
    if (names.has(name)) return { key, name };
  }
  return undefined;
}
