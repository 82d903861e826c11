import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { hasBrowser } from "./browser.ts";

/** Builds the panel before the tests that show it in a browser, if web/ is newer. */
export default function buildPanel(): void {
  if (!hasBrowser) return;
  const root = join(import.meta.dirname, "..", "..");
  execFileSync(process.execPath, ["scripts/build-panel.mjs", "--if-stale"], { cwd: root, stdio: "inherit" });
}
