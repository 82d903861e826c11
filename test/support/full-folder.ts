import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { tempDir } from "./temp-dir.ts";

/** A folder in which files can be made, but nothing can be written to them, as on a full disk. */
export interface FullFolder {
  readonly path: string;
  /** What a write fails with. */
  readonly code: "ENOSPC" | "EFBIG";
}

/**
 * Makes one for the rest of a test: on a file system that is full, or, where none can be mounted, by a limit on the size
 * of this process's files, which needs no privileges. Returns null where neither is to be had, and throws there if `CI`
 * is set: nobody reads which tests CI has skipped.
 */
export function fullFolder(): FullFolder | null {
  const full = onFullDisk() ?? underSizeLimit();
  if (full === null && process.env.CI !== undefined) throw new Error("neither mount nor prlimit makes a full disk");
  return full;
}

/** Needs CAP_SYS_ADMIN. */
function onFullDisk(): FullFolder | null {
  const path = tempDir();
  if (!runs("mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", path)) return null;
  onTestFinished(() => {
    runs("umount", path);
  });
  writeFileSync(join(path, "full"), "x".repeat(4096));
  return { path, code: "ENOSPC" };
}

/** Node ignores the signal that comes with the error. The hard limit stays, so that the soft one can be raised again. */
function underSizeLimit(): FullFolder | null {
  const path = tempDir();
  writeFileSync(join(path, "full"), "x");
  const ours = ["--pid", String(process.pid)];
  const before = spawnSync("prlimit", [...ours, "--fsize", "--noheadings", "--raw", "--output", "SOFT"]);
  if (before.status !== 0 || !runs("prlimit", ...ours, "--fsize=0:")) return null;
  onTestFinished(() => {
    runs("prlimit", ...ours, `--fsize=${before.stdout.toString().trim()}:`);
  });
  return { path, code: "EFBIG" };
}

function runs(command: string, ...args: readonly string[]): boolean {
  return spawnSync(command, args).status === 0;
}
