/** Makes a test of a glob in which `*` stands for any run of characters and everything else for itself. */
export function globMatcher(glob: string): (name: string) => boolean {
  const pieces = glob.split("*").map((piece) => piece.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const pattern = new RegExp(`^${pieces.join(".*")}$`, "s");
  return (name) => pattern.test(name);
}
