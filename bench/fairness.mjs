// Measures what one user with many requests does to others: how long twenty users with one request each wait for their
// first event, alone and beside one with 200 at once, while the proxy runs ten chats at a time.
//
//   npm run bench:fairness              about a minute
//   npm run bench:fairness -- --smoke   a few seconds: proves that it runs, the figures mean little
//
// Fails only if a request failed; a slow machine is no failure.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Connection, requestBytes } from "./http-client.mjs";
import { createRunning, startProxy, startUpstream } from "./processes.mjs";
import { figure, table } from "./table.mjs";

const { values: options } = parseArgs({ options: { smoke: { type: "boolean" } } });
const ms = options.smoke ? 2000 : 15_000;
const upstreamMs = 50;
const places = 10;
const light = 20;
const heavy = 200;
const users = ["heavy", ...Array.from({ length: light }, (_, index) => `light-${index}`)];

const dir = mkdtempSync(join(tmpdir(), "proxy-bench-fairness-"));
const { keep, stopAll } = createRunning();

try {
  const upstream = await keep(startUpstream(dir));
  const concurrency = `max_parallel = ${heavy}\nmax_waiting = ${heavy}\nmax_total = ${places}\nmax_wait_ms = 600000`;
  const proxy = await keep(startProxy(dir, upstream.url, "dist", { concurrency, users }));
  const [heavyToken, ...lightTokens] = proxy.tokens;
  const rows = [];
  // In turn, because a machine may be slower for a while.
  const alone = [];
  const beside = [];
  let heavyServed = 0;
  for (let round = 0; round < 2; round++) {
    alone.push(...(await run(proxy.url, lightTokens)).flat());
    const all = await run(proxy.url, [...lightTokens, ...Array(heavy).fill(heavyToken)]);
    beside.push(...all.slice(0, light).flat());
    heavyServed += all.slice(light).flat().length;
  }
  for (const [name, share] of [
    ["p50", 0.5],
    ["p90", 0.9],
    ["p99", 0.99],
  ]) {
    const [a, b] = [percentile(alone, share), percentile(beside, share)];
    rows.push([`wait, ms: ${name}`, figure(a), figure(b), `${(b / a).toFixed(2)}x`]);
  }
  rows.push(["served", String(alone.length), String(beside.length), `${(beside.length / alone.length).toFixed(2)}x`]);
  console.log(`${light} users with one request each, ${places} places, answers of ${upstreamMs} ms\n`);
  console.log(table(["", "alone", `beside one with ${heavy}`, "ratio"], rows));
  const share = heavyServed / (heavyServed + beside.length);
  console.log(
    `\nHe gets ${(share * 100).toFixed(1)}% of what is served; one share in ${light + 1} is ${(100 / (light + 1)).toFixed(1)}%.`,
  );
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await stopAll();
  rmSync(dir, { recursive: true, force: true });
}

/** A client for each token, each sending its next request when the last is answered. Returns each one's waits in ms. */
async function run(url, tokens) {
  const body = {
    model: `sim-queue:${upstreamMs}`,
    messages: [{ role: "user", content: "hi" }],
    max_tokens: 1,
    stream: true,
  };
  const until = performance.now() + ms;
  return Promise.all(
    tokens.map(async (token) => {
      const connection = new Connection(url);
      const bytes = requestBytes(url, token, body);
      const waits = [];
      while (performance.now() < until) {
        const { ok, sentAt, firstAt, head } = await connection.send(bytes, "data: [DONE]");
        if (!ok) throw new Error(`a request failed: ${head}`);
        // What is served after the end has nobody else beside it.
        if (performance.now() < until) waits.push(Math.max(0, firstAt - sentAt - upstreamMs));
      }
      connection.close();
      return waits;
    }),
  );
}

function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}
