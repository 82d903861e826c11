// Builds the panel into dist/panel, compresses its files, and refuses a panel that has become too heavy.
//
//   node scripts/build-panel.mjs              builds it
//   node scripts/build-panel.mjs --if-stale   builds it if a file of web/ is newer
//   node scripts/build-panel.mjs --sizes      and prints the sizes
//
// Limits, in KB as gzip -9 has it: what the first page loads, and all files together.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { isStale, mark, root } from "./stale.mjs";

const limits = { "the first load": 60, "all files": 120 };
const stamp = "dist/.panel-built";
const folder = join(root, "dist", "panel");

if (!process.argv.includes("--if-stale") || isStale(stamp, "web")) await buildPanel();

async function buildPanel() {
  const startedAt = new Date();
  const { build } = await import("vite");
  await build({ configFile: join(root, "web", "vite.config.ts"), logLevel: "warn" });

  const files = readdirSync(folder, { recursive: true }).filter((name) => /\.(html|js|css|svg)$/.test(name));
  const sizes = new Map();
  for (const name of files) {
    const path = join(folder, name);
    const body = readFileSync(path);
    const packed = gzipSync(body, { level: 9 });
    sizes.set(name.replaceAll("\\", "/"), packed.length);
    writeFileSync(`${path}.gz`, packed);
    writeFileSync(`${path}.br`, brotliCompressSync(body));
  }

  // The page and all that it names, and what its home page needs: all but charts, operators' pages and other languages.
  const later = /^assets\/(plot|operator|zh)-/;
  const total = (names) => names.reduce((sum, name) => sum + sizes.get(name), 0) / 1024;
  const names = [...sizes.keys()];
  const measured = { "the first load": total(names.filter((name) => !later.test(name))), "all files": total(names) };
  for (const [what, kilobytes] of Object.entries(measured)) {
    const line = `Panel: ${what} ${kilobytes.toFixed(1)} KB of ${limits[what]}`;
    if (kilobytes > limits[what]) throw new Error(line);
    if (process.env.CI !== undefined || process.argv.includes("--sizes")) console.log(line);
  }
  mark(stamp, startedAt);
}
