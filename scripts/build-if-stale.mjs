// Builds dist/ when a source file is newer than the last build, so that `npm start` is one command.
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { isStale, mark, root } from "./stale.mjs";

const stamp = "dist/.built";
if (isStale(stamp, "src", "tsconfig.json", "tsconfig.build.json")) {
  const startedAt = new Date();
  console.error("Compiling; this takes a few seconds …");
  const tsc = join(root, "node_modules", "@typescript", "native", "bin", "tsc");
  execFileSync(process.execPath, [tsc, "-p", join(root, "tsconfig.build.json")], { stdio: "inherit", cwd: root });
  await import("./copy-lua.mjs");
  mark(stamp, startedAt);
}
if (isStale("dist/.panel-built", "web")) await import("./build-panel.mjs");
