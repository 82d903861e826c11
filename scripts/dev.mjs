// Compiles the proxy and the panel on every save and restarts the proxy after each compile.
import { spawn } from "node:child_process";
import { join } from "node:path";
import "./build-if-stale.mjs";

const root = join(import.meta.dirname, "..");
const tsc = join(root, "node_modules", "@typescript", "native", "bin", "tsc");
const vite = join(root, "node_modules", "vite", "bin", "vite.js");
const options = { stdio: "inherit", cwd: root };
const children = [
  spawn(process.execPath, [tsc, "-p", "tsconfig.build.json", "--watch", "--preserveWatchOutput"], options),
  spawn(process.execPath, [vite, "build", "web", "--watch", "--logLevel", "warn"], options),
  spawn(process.execPath, ["--watch", "dist/main.js", ...process.argv.slice(2)], options),
];
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => children.forEach((child) => child.kill(signal)));
