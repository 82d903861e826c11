// Attacks every regular expression of src/ with texts that make a backtracking one slow, and measures whether ten times
// the text takes at most twelve times as long. The lint holds the same rule by reading patterns; this one runs them.
//   node scripts/attacks/patterns.mjs            all patterns; some two minutes
//   node scripts/attacks/patterns.mjs --quick    all patterns, with the simple texts alone; some seconds
//   node scripts/attacks/patterns.mjs '/(a+)+$/' the pattern given
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { Worker, isMainThread, parentPort } from "node:worker_threads";
import ts from "typescript";

/** Letters in the shorter of two texts. */
const small = 1000;
const factor = 10;
const maxRatio = 12;
/** ms: below it a measurement is noise, whatever its ratio. */
const worthMeasuring = 3;
/** ms after which a pattern is called endless. */
const patience = 20_000;

if (isMainThread) await attackAll();
else parentPort.on("message", (task) => parentPort.postMessage(worstOf(task)));

async function attackAll() {
  const quick = process.argv.includes("--quick");
  const given = process.argv.slice(2).find((argument) => argument.startsWith("/"));
  const patterns = given === undefined ? patternsOf(join(import.meta.dirname, "../../src")) : [parseLiteral(given)];
  let failed = 0;
  let worker;
  for (const { where, source, flags } of patterns) {
    worker ??= new Worker(new URL(import.meta.url));
    const worst = await attack(worker, { source, flags, quick });
    if (worst === null) continue;
    failed += 1;
    await worker.terminate();
    worker = undefined;
    console.log(`${where}: /${source}/${flags}\n  ${worst}`);
  }
  console.log(`${patterns.length} patterns, ${failed} of them slower than linear`);
  await worker?.terminate();
  process.exitCode = failed === 0 ? 0 : 1;
}

/** Has a pattern attacked in a thread of its own, which can be ended. */
function attack(worker, task) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve(`no end after ${patience} ms`), patience);
    worker.once("error", reject);
    worker.once("message", (worst) => {
      clearTimeout(timer);
      worker.off("error", reject);
      resolve(worst);
    });
    worker.postMessage(task);
  });
}

/** What the worst text does to a pattern; null where all is well. */
function worstOf({ source, flags, quick }) {
  const pattern = new RegExp(source, flags);
  for (const text of textsFor(source, quick)) {
    // Again and again: a slow run may be the fault of another program.
    if ([1, 2, 3].every(() => isSlow(pattern, text))) return `slow for ${JSON.stringify(text(12))}`;
  }
  return null;
}

function isSlow(pattern, text) {
  const long = text(small * factor);
  if (measure(pattern, long, 1) < worthMeasuring) return false;
  return measure(pattern, long, 3) / Math.max(measure(pattern, text(small), 3), 0.01) > maxRatio;
}

/** ms of the quickest of some runs. */
function measure(pattern, text, runs) {
  let best = Infinity;
  for (let run = 0; run < runs; run++) {
    const start = performance.now();
    pattern.lastIndex = 0;
    while (pattern.test(text) && (pattern.global || pattern.sticky)) if (pattern.lastIndex === 0) break;
    best = Math.min(best, performance.now() - start);
  }
  return best;
}

/** Makers of texts of a length: what the pattern is made of, alone and in pairs, again and again, and an end beside it. */
function textsFor(source, quick) {
  // Without a quantifier that has no end, a pattern looks at a few characters from each place and no more.
  if (!/[*+]|,\}/.test(source)) return [];
  const plain = source.replace(/\\[a-zA-Z]/g, " ").replaceAll("\\", "");
  const words = plain.match(/[\w:/@=]{2,}/g) ?? [];
  const units = [...new Set(["a", "0", " ", "\n", "汉", ...words, ...plain])].slice(0, 25);
  const pairs = quick ? [] : units.flatMap((one) => units.map((other) => one + other));
  return [...units, ...pairs].flatMap((unit) =>
    ["", words[0] ?? plain[0] ?? ""].flatMap((head) =>
      ["", "\0"].map((tail) => (length) => head + unit.repeat(Math.ceil(length / unit.length)) + tail),
    ),
  );
}

function patternsOf(folder) {
  const found = [];
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith(".ts")) continue;
    const path = join(entry.parentPath, entry.name);
    const file = ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.Latest, true);
    const visit = (node) => {
      if (ts.isRegularExpressionLiteral(node)) {
        const { line } = file.getLineAndCharacterOfPosition(node.getStart());
        found.push({ ...parseLiteral(node.text), where: `${relative(process.cwd(), path)}:${line + 1}` });
      }
      ts.forEachChild(node, visit);
    };
    visit(file);
  }
  return found;
}

function parseLiteral(text) {
  const end = text.lastIndexOf("/");
  return { where: "given", source: text.slice(1, end), flags: text.slice(end + 1) };
}
