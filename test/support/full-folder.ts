import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { tempDir } from "./temp-dir.ts";

/** A folder on a file system that is full; null where none can be mounted, which only root may. */
export function fullFolder(): string | null {
  const folder = tempDir();
  if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=4k", "tmpfs", folder]).status !== 0) return null;
  onTestFinished(() => {
    spawnSync("umount", [folder]);
  });
  writeFileSync(join(folder, "full"), "x".repeat(4096));
  return folder;
}
