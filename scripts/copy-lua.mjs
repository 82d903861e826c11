// Copies the functions that run in Redis beside the compiled code: the compiler leaves them out.
import { copyFileSync, mkdirSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";

const root = join(import.meta.dirname, "..");
for (const file of readdirSync(join(root, "src"), { recursive: true })) {
  if (!file.endsWith(".lua")) continue;
  const copy = join(root, "dist", file);
  mkdirSync(dirname(copy), { recursive: true });
  copyFileSync(join(root, "src", file), copy);
}
