// Builds dist/ when a source file is newer than the last build, so that `npm start` is one command.
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const stamp = join(root, "dist", ".built");
const panelStamp = join(root, "dist", ".panel-built");

function newest(path) {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...readdirSync(path).map((name) => newest(join(path, name))));
}

function isStale(stamp, ...sources) {
  if (!existsSync(stamp)) return true;
  return statSync(stamp).mtimeMs < Math.max(...sources.map((name) => newest(join(root, name))));
}

function mark(stamp, startedAt) {
  writeFileSync(stamp, "");
  // A file saved while the compiler ran must count as newer than the build.
  utimesSync(stamp, startedAt, startedAt);
}

if (isStale(stamp, "src", "tsconfig.json", "tsconfig.build.json")) {
  const startedAt = new Date();
  console.error("Compiling; this takes about ten seconds …");
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  execFileSync(process.execPath, [tsc, "-p", join(root, "tsconfig.build.json")], { stdio: "inherit", cwd: root });
  await import("./copy-lua.mjs");
  mark(stamp, startedAt);
}
if (isStale(panelStamp, "web", "scripts/build-panel.mjs")) {
  const startedAt = new Date();
  await import("./build-panel.mjs");
  mark(panelStamp, startedAt);
}
