// What each fast path is worth: the whole proxy against itself with one of them switched off, in alternating runs.
//
//   npm run bench:ablation                       all of them, about a minute each
//   npm run bench:ablation -- --only twin        those whose name contains it
//   npm run bench:ablation -- --rounds 20        more rounds for a noisy machine
//
// A fast path that gains less than 3% of every row is not worth its lines. A change of code that a switch no longer
// finds ends the run, so that a switch never measures nothing.
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createRunning, startLoad, startProxy, startUpstream } from "./processes.mjs";
import { burst, json, paced } from "./scenarios.mjs";

/** Each fast path, and what to write instead of it. */
const fastPaths = [
  {
    name: "twin patterns: events that differ from the last one in a text alone are not read",
    file: "providers/stream/stream-reader.js",
    find: "const { pattern } = this.#factless;\n        if (pattern === null)",
    replace: "const { pattern } = this.#factless;\n        if (pattern !== undefined)",
  },
  {
    name: "search before parsing: events that can hold no facts are not parsed",
    file: "providers/stream/stream-reader.js",
    find: "#needsParsing(data, start, end) {",
    replace: "#needsParsing(data, start, end) {\n        if (start >= 0) return true;",
  },
  {
    name: "small chunks are framed in one piece",
    file: "gateway/response-writer.js",
    find: "this.#chunked && bytes.length <= smallBytes",
    replace: "false",
  },
  {
    name: "records of the journal are concatenated by hand",
    file: "quota/memory/charge-record.js",
    find: "export function encodeLedgerRecord(record) {",
    replace: "export function encodeLedgerRecord(record) {\n    JSON.stringify(record);",
  },
  {
    name: "verified tokens are remembered",
    file: "identity/sessions/tokens.js",
    find: "const known = verified.get(token);",
    replace: "const known = undefined;",
  },
  {
    // No fast path: what is switched off must cost nothing beside a program that doesn't have it.
    name: "tracing, which is off here: without its hook",
    file: "http/plugins/tracing.js",
    find: 'app.decorateRequest("trace", null);',
    replace: 'app.decorateRequest("trace", null);\n    if (app) return;',
  },
];

const { values: options } = parseArgs({ options: { only: { type: "string" }, rounds: { type: "string" } } });
const rounds = Number(options.rounds ?? 10);
const root = join(import.meta.dirname, "..");
const dir = mkdtempSync(join(tmpdir(), "proxy-ablation-"));
const { keep, stopAll } = createRunning();

/** A copy of the program without one fast path. */
function without({ file, find, replace }, index) {
  const copy = join(dir, `dist-${index}`);
  cpSync(join(root, "dist"), copy, { recursive: true });
  const path = join(copy, file);
  const text = readFileSync(path, "utf8");
  if (!text.includes(find)) throw new Error(`${file} no longer holds ${JSON.stringify(find)}`);
  writeFileSync(path, text.replace(find, replace));
  return copy;
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN;

try {
  symlinkSync(join(root, "node_modules"), join(dir, "node_modules"));
  writeFileSync(join(dir, "package.json"), readFileSync(join(root, "package.json")));
  const upstream = await keep(startUpstream(dir));
  const load = await keep(startLoad(dir));
  const intact = await keep(startProxy(join(dir, "intact"), upstream.url));
  await warmUp(intact);
  console.log("What the whole proxy costs more without it: the median over all rounds, and the quartiles.\n");
  for (const [index, path] of fastPaths.entries()) {
    if (options.only !== undefined && !path.name.includes(options.only)) continue;
    const ablated = await keep(startProxy(join(dir, `ablated-${index}`), upstream.url, without(path, index)));
    await warmUp(ablated);
    const ratios = new Map();
    for (let round = 0; round < rounds; round++) {
      const inTurn = round % 2 === 0 ? [intact, ablated] : [ablated, intact];
      for (const [name, measure] of rows()) {
        const costs = new Map();
        for (const server of inTurn) costs.set(server, await measure(server));
        ratios.set(name, [...(ratios.get(name) ?? []), costs.get(ablated) / costs.get(intact)]);
      }
    }
    console.log(path.name);
    for (const [name, values] of ratios) {
      const sorted = [...values].sort((a, b) => a - b);
      const [low, high] = [sorted[values.length >> 2], sorted[(values.length * 3) >> 2]];
      console.log(`  ${name.padEnd(6)} ${percent(median(values))}  (${percent(low)} to ${percent(high)})`);
    }
    await ablated.stop();
  }

  function rows() {
    return [
      ["json", async (server) => Object.values(await json(server, load, { ms: 700 }))[0]],
      ["burst", async (server) => Object.values(await burst(server, load, { ms: 700 }))[0]],
      [
        "paced",
        async (server) => Object.values(await paced(server, load, { streams: 100, ms: 700, settleMs: 300 }))[0],
      ],
    ];
  }

  async function warmUp(server) {
    for (const scenario of [json, burst]) await scenario(server, load, { ms: 8_000 });
  }
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await stopAll();
  rmSync(dir, { recursive: true, force: true });
}

function percent(ratio) {
  const value = (ratio - 1) * 100;
  return `${value >= 0 ? "+" : ""}${value.toFixed(1)}%`;
}
