import { copyFileSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Compiles parts of src/ into `folder`, for a process of its own that a test wants to kill. `parts` are folders or
 * files relative to src/, with all that they import.
 */
export function compileSrc(folder: string, parts: readonly string[]): void {
  for (const part of parts) {
    for (const file of isSource(part) ? [part] : filesOf(part)) {
      const target = join(folder, file.replace(/\.ts$/, ".js"));
      mkdirSync(dirname(target), { recursive: true });
      if (file.endsWith(".lua")) {
        copyFileSync(join(root, "src", file), target);
        continue;
      }
      const { outputText } = ts.transpileModule(readFileSync(join(root, "src", file), "utf8"), {
        compilerOptions: {
          module: ts.ModuleKind.ESNext,
          target: ts.ScriptTarget.ES2023,
          rewriteRelativeImportExtensions: true,
          verbatimModuleSyntax: true,
        },
      });
      writeFileSync(target, outputText);
    }
  }
  writeFileSync(join(folder, "package.json"), '{"type":"module"}');
  // Below node_modules/ packages are found anyway, and by their own paths.
  const modules = join(root, "node_modules");
  if (!folder.startsWith(modules + sep)) symlinkSync(modules, join(folder, "node_modules"));
}

/** Whether a file is one that a compiled program needs: code, or functions for Redis. */
export function isSource(name: string): boolean {
  return name.endsWith(".ts") || name.endsWith(".lua");
}

/** The sources in a folder of src/ and in all folders below it. */
function filesOf(part: string): string[] {
  return readdirSync(join(root, "src", part), { recursive: true, encoding: "utf8" })
    .filter(isSource)
    .map((name) => join(part, name));
}
