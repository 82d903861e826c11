/** Longest name that a glob can match, in UTF-16 units. Whoever takes globs from users bounds them by it as well. */
export const maxNameLength = 200;
/** Most stars that such a glob may have. */
export const maxStars = 10;

/**
 * Makes a test of a glob in which `*` stands for any run of characters and everything else for itself. Names longer
 * than maxNameLength match nothing. What lies between two stars is searched from left to right and never again, so the
 * work of a test is bounded, however glob and name are made: both come from users.
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
    // The first place of a piece leaves the most room for those behind it, so no other place need be tried.
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
 * Orders globs by how much they say, for sorting: a name without `*` first, then the one with more literal characters.
 * 0 where neither says more.
 */
export function moreLiteralFirst(a: string, b: string): number {
  return Number(a.includes("*")) - Number(b.includes("*")) || literalLength(b) - literalLength(a);
}

function literalLength(glob: string): number {
  return glob.length - starsOf(glob);
}

/** How many stars a glob has. */
export function starsOf(glob: string): number {
  return glob.split("*").length - 1;
}
