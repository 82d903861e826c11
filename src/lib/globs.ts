/** Makes a test of a glob in which `*` stands for any run of characters and everything else for itself. */
export function globMatcher(glob: string): (name: string) => boolean {
  const pieces = glob.split("*").map((piece) => piece.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const pattern = new RegExp(`^${pieces.join(".*")}$`, "s");
  return (name) => pattern.test(name);
}

/**
 * Orders globs by how much they say, for sorting: a name without `*` first, then the one with more literal characters.
 * 0 where neither says more.
 */
export function moreLiteralFirst(a: string, b: string): number {
  return Number(a.includes("*")) - Number(b.includes("*")) || literalLength(b) - literalLength(a);
}

function literalLength(glob: string): number {
  return glob.replaceAll("*", "").length;
}
