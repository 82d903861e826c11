// Measures what the proxy does with more than it can serve: goodput at one, two and four times the sustainable load,
// how long /livez takes meanwhile, and what is left afterwards; then 5,000 clients that come at once, with the short
// backlog of Node and with ours.
//
//   npm run bench:overload              about a minute
//   npm run bench:overload -- --smoke   a few seconds: proves that it runs, the figures mean little
//
// Fails only if something was left over; a slow machine is no failure.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createRunning, startLoad, startProxy, startUpstream } from "./processes.mjs";
import { figure, table } from "./table.mjs";

const { values: options } = parseArgs({ options: { smoke: { type: "boolean" } } });
const ms = options.smoke ? 2000 : 6000;
const storm = options.smoke ? 500 : 5000;
const body = { model: "sim-fast", messages: [{ role: "user", content: "hi" }], stream: true };
/** Without compilers the proxy is what can't keep up on two cores, not the clients and the provider on the other one. */
const slow = ["--no-opt", "--no-sparkplug"];

try {
  console.log(
    table(
      ["load", "sent a second", "served a second", "to the peak", "refused", "/livez p99, ms", "left"],
      await overload(),
    ),
  );
  console.log(`\n${storm} clients at once, ms to the first event:\n`);
  const rows = [];
  for (const backlog of [511, 4096]) rows.push(await clientsAtOnce(backlog));
  console.log(table(["", "p50", "p99", "last", "refused"], rows));
} catch (error) {
  console.error(error);
  process.exitCode = 1;
}

/** Runs with a fresh proxy and its upstream. */
async function withProxy(changes, run) {
  const dir = mkdtempSync(join(tmpdir(), "proxy-bench-overload-"));
  const { keep, stopAll } = createRunning();
  try {
    const upstream = await keep(startUpstream(dir));
    const load = await keep(startLoad(dir));
    return await run(await keep(startProxy(dir, upstream.url, "dist", changes)), load);
  } finally {
    await stopAll();
    rmSync(dir, { recursive: true, force: true });
  }
}

function overload() {
  return withProxy({ flags: slow }, async ({ url, token }, load) => {
    const inTurn = { order: "closed", url, token, body, mustContain: "data: [DONE]", clients: 16, ms };
    // Until the code is compiled.
    await load.ask(inTurn);
    const { requests, seconds, failure } = await load.ask(inTurn);
    if (failure !== undefined) throw new Error(failure);
    const sustainable = requests / seconds;
    const results = [];
    for (const times of [1, 2, 4]) {
      const result = await load.ask({ order: "arrivals", url, token, body, perSecond: sustainable * times, ms });
      results.push({ ...result, times, left: await whatIsLeft(url) });
    }
    const peak = Math.max(sustainable, ...results.map(({ goodput }) => goodput));
    if (results.some(({ left }) => left !== "0, 0")) process.exitCode = 1;
    return [
      ["16 clients in turn", figure(sustainable), figure(sustainable), percent(sustainable / peak), "0%", "", ""],
      ...results.map(({ times, sent, goodput, refused, livez, left }) => [
        `${times}x`,
        figure(sent),
        figure(goodput),
        percent(goodput / peak),
        percent(refused),
        figure(livez),
        left,
      ]),
    ];
  });
}

/** Permits that are held and requests that wait, once what runs has had time to end. */
async function whatIsLeft(url) {
  let left = "";
  for (let tries = 0; tries < 50 && left !== "0, 0"; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    const text = await (await fetch(`${url}/metrics`)).text();
    const read = (name) => new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1] ?? "?";
    left = `${read("proxy_permits_held")}, ${read("proxy_requests_in_flight")}`;
  }
  return left;
}

function clientsAtOnce(backlog) {
  return withProxy({ server: `backlog = ${backlog}` }, async ({ url, token }, load) => {
    // Warm, as a proxy that has run for a while.
    await load.ask({ order: "closed", url, token, body, mustContain: "data: [DONE]", clients: 16, ms: ms / 3 });
    const { p50Ms, p99Ms, last, refused } = await load.ask({ order: "atOnce", url, token, body, clients: storm });
    return [`backlog ${backlog}`, figure(p50Ms), figure(p99Ms), figure(last), String(refused)];
  });
}

function percent(share) {
  return `${Math.round(share * 100)}%`;
}
