// Measures what events cost: 50,000 a second into the behaviour logs of 1,000 users, beside a file opened, written, flushed
// and closed for each; what requests wait for where a webhook, Redis and Kafka hang, and where the disk of their events is
// slow; what tracing costs a request.
//
//   npm run bench:events                about six minutes
//   npm run bench:events -- --smoke     a few seconds: proves that it runs, the figures mean little
//   npm run bench:events -- --only disk one part: logs, hangs, disk or traces
//
// Fails if a request failed; a slow machine is no failure, though it may cost lines of the log.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createSocketServer } from "node:net";
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createRunning, startEventWriter, startLoad, startProxy, startUpstream } from "./processes.mjs";
import { burst, json } from "./scenarios.mjs";
import { figure, table } from "./table.mjs";

const { values: options } = parseArgs({ options: { smoke: { type: "boolean" }, only: { type: "string" } } });
const size = options.smoke
  ? { perSecond: 5000, logMs: 1500, aloneMs: 500, hangMs: 500, hangRounds: 2, traceMs: 500, traceRounds: 2 }
  : { perSecond: 50_000, logMs: 60_000, aloneMs: 5000, hangMs: 5000, hangRounds: 12, traceMs: 1500, traceRounds: 8 };
const isWanted = (part) => options.only === undefined || options.only === part;
const users = 1000;
const chat = { model: "sim-fast", stream: true, messages: [{ role: "user", content: "hi" }] };

const latencyRows = [
  ["p50, ms", ({ p50Ms }) => p50Ms],
  ["p99, ms", ({ p99Ms }) => p99Ms],
  ["requests per second", ({ requests, seconds }) => requests / seconds],
];

const dir = mkdtempSync(join(tmpdir(), "proxy-bench-events-"));
const { keep, stopAll } = createRunning();
const closing = [];
const folder = (name) => {
  mkdirSync(join(dir, name));
  return join(dir, name);
};

try {
  print(`${cpus()[0]?.model ?? "unknown CPU"}, ${availableParallelism()} cores, Node ${process.version}`);
  if (isWanted("logs")) await logs();
  const upstream = await keep(startUpstream(folder("upstream")));
  const load = await keep(startLoad(folder("load")));
  if (isWanted("hangs")) await hangs(upstream, load);
  if (isWanted("disk")) await slowDisk(upstream, load);
  if (isWanted("traces")) await traces(upstream, load);
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await stopAll();
  for (const close of closing) close();
  rmSync(dir, { recursive: true, force: true });
}

async function logs() {
  const writer = await keep(startEventWriter(folder("writer")));
  const rows = [];
  const run = async (name, way, ms) => {
    progress(name);
    const result = await writer.ask({ way, dir: join(dir, way), users, perSecond: size.perSecond, ms });
    const { perSecond, lost, p50Ms, p99Ms, maxMs, cores } = result;
    rows.push([name, figure(perSecond), String(lost), ...[p50Ms, p99Ms, maxMs, cores].map(figure), machine()]);
  };
  await run("behaviour log", "behaviourLog", size.logMs);
  // Twice the lines: the log of all requests is among them.
  await run("all sinks of a proxy", "allSinks", size.logMs / 4);
  await run("each event alone", "eachAlone", size.aloneMs);
  const head = ["", "events/s", "lines lost", "delay p50, ms", "p99, ms", "max, ms", "cores", "load of the machine"];
  print(`\n${size.perSecond} events a second of ${users} users, delays of the event loop:\n\n${table(head, rows)}`);
  await writer.stop();
}

/** Latencies with all sinks of the outside hanging, and with none, in turn. */
async function hangs(upstream, load) {
  const silent = createSocketServer((socket) => socket.on("error", () => undefined).resume());
  const port = await listen(silent);
  const sections = `[alerts]
webhook_url = "http://127.0.0.1:${port}/"
allow_private = true
events = ["login.failed"]
[events.redis]
stream = "events"
url_env = "EVENTS_REDIS"
[events.kafka]
topic = "events"
`;
  const address = `127.0.0.1:${port}`;
  const env = { ALERT_WEBHOOK_SECRET: "s".repeat(32), EVENTS_REDIS: `redis://${address}`, KAFKA_BROKERS: address };
  const proxies = {
    alone: await keep(startProxy(folder("alone"), upstream.url)),
    hanging: await keep(startProxy(folder("hanging"), upstream.url, "dist", { sections, env })),
  };
  const order = ({ url, token }, ms) => ({
    order: "closed",
    url,
    token,
    body: chat,
    mustContain: "data: [DONE]",
    clients: 4,
    ms,
  });
  for (const proxy of Object.values(proxies)) checked(await load.ask(order(proxy, 2 * size.hangMs)));
  const figures = { alone: [], hanging: [] };
  for (let round = 0; round < size.hangRounds; round++) {
    progress(`hanging sinks, round ${round + 1} of ${size.hangRounds}`);
    for (const name of round % 2 === 0 ? ["alone", "hanging"] : ["hanging", "alone"]) {
      await failToLogIn(proxies[name].url);
      figures[name].push(checked(await load.ask(order(proxies[name], size.hangMs))));
    }
  }
  const waiting = await metric(proxies.hanging.url, "events_forwarder_lag");
  if (!waiting.every((lag) => lag > 0)) throw new Error(`the sinks did not hang: ${waiting}`);
  const rows = latencyRows.map(([name, of]) => [name, ...pair(figures.alone.map(of), figures.hanging.map(of))]);
  print(`\nrequests while a webhook, Redis and Kafka accept connections and never answer; ${machine()}\n`);
  print(table(["", "no sinks", "hanging", "ratio"], rows));
  print(`\nevents that waited at the end: ${waiting.join(" and ")}`);
}

/** Latencies where each write and sync of the spool takes 50 ms, and where it does not, in turn. */
async function slowDisk(upstream, load) {
  const tracer = ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"];
  if (spawnSync(tracer[0], [...tracer.slice(2), "true"]).status !== 0) {
    print("\na slow disk under the spool: not measured, since there is no strace, or it may not trace");
    return;
  }
  const sections = '[events.redis]\nstream = "events"\nurl_env = "EVENTS_REDIS"\n';
  const env = { EVENTS_REDIS: "redis://127.0.0.1:1" };
  const startOn = async (name, delay) => {
    const spool = join(folder(name), "logs", "spool", "0000000000000001.journal");
    const calls = "write,pwrite64,fdatasync,ftruncate";
    const slow = [...tracer, "-P", spool, "-e", `trace=${calls}`, "-e", `inject=${calls}:delay_enter=${delay}`];
    return keep(startProxy(join(dir, name), upstream.url, "dist", { sections, env, under: slow }));
  };
  // Both are traced: that costs as well.
  const proxies = { quick: await startOn("quick", 0), slow: await startOn("slow", 50_000) };
  const order = ({ url, token }, ms) => ({
    order: "closed",
    url,
    token,
    body: chat,
    mustContain: "data: [DONE]",
    clients: 4,
    ms,
  });
  for (const proxy of Object.values(proxies)) checked(await load.ask(order(proxy, 2 * size.hangMs)));
  const figures = { quick: [], slow: [] };
  for (let round = 0; round < size.hangRounds / 2; round++) {
    progress(`slow disk, round ${round + 1} of ${size.hangRounds / 2}`);
    for (const name of round % 2 === 0 ? ["quick", "slow"] : ["slow", "quick"])
      figures[name].push(checked(await load.ask(order(proxies[name], size.hangMs))));
  }
  const rows = latencyRows.map(([name, of]) => [name, ...pair(figures.quick.map(of), figures.slow.map(of))]);
  print(`\nrequests while each write and sync of the spool takes 50 ms; ${machine()}\n`);
  print(table(["", "quick disk", "slow disk", "ratio"], rows));
  const lost = await metric(proxies.slow.url, "events_lost_total");
  print(`\nevents lost by the slow one: ${lost.reduce((sum, count) => sum + count, 0)}`);
}

/** What a request costs with no collector, and with one that gets a trace of each. */
async function traces(upstream, load) {
  let spans = 0;
  const collector = createServer((request, response) => {
    request.resume().on("end", () => {
      spans++;
      response.setHeader("content-type", "application/json");
      response.end("{}");
    });
  });
  const sections = `[telemetry]\notlp_endpoint = "http://127.0.0.1:${await listen(collector)}"\nmax_queued_spans = 100000\n`;
  const proxies = {
    off: await keep(startProxy(folder("off"), upstream.url)),
    on: await keep(startProxy(folder("on"), upstream.url, "dist", { sections })),
  };
  for (const proxy of Object.values(proxies))
    for (const scenario of [json, burst]) await scenario(proxy, load, { ms: 4 * size.traceMs });
  const figures = { off: [], on: [] };
  for (let round = 0; round < size.traceRounds; round++) {
    progress(`traces, round ${round + 1} of ${size.traceRounds}`);
    for (const name of round % 2 === 0 ? ["off", "on"] : ["on", "off"]) {
      const one = {};
      for (const scenario of [json, burst])
        Object.assign(one, await scenario(proxies[name], load, { ms: size.traceMs }));
      figures[name].push(one);
    }
  }
  if (spans === 0) throw new Error("the collector has had nothing");
  const names = Object.keys(figures.off[0]);
  const rows = names.map((name) => [
    name,
    ...pair(
      figures.off.map((one) => one[name]),
      figures.on.map((one) => one[name]),
    ),
  ]);
  print(`\ntraces off and on; ${machine()}\n\n${table(["", "off", "on", "ratio"], rows)}`);
}

/** The medians of both, and of what each round gave as their ratio. */
function pair(before, after) {
  const ratio = median(after.map((value, index) => value / before[index]));
  return [figure(median(before)), figure(median(after)), `${ratio.toFixed(2)}x`];
}

function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

async function failToLogIn(url) {
  const { status } = await fetch(`${url}/auth/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ username: "nobody", password: "not a password of anybody" }),
  });
  if (status !== 401 && status !== 429) throw new Error(`a login was answered with ${status}`);
}

/** The values of a metric. */
async function metric(url, name) {
  const text = await (await fetch(`${url}/metrics`)).text();
  return [...text.matchAll(new RegExp(`^${name}\\{[^}]*\\} (\\S+)$`, "gm"))].map(([, value]) => Number(value));
}

async function listen(server) {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  closing.push(
    () => server.close(),
    () => server.closeAllConnections?.(),
  );
  server.unref();
  return server.address().port;
}

function checked(result) {
  if (result.failure !== undefined) throw new Error(`a request failed: ${result.failure}`);
  return result;
}

/** Others may use it as well. */
function machine() {
  return `load ${loadavg()[0].toFixed(1)}`;
}

function progress(text) {
  process.stderr.write(`${text}\n`);
}

function print(text) {
  process.stdout.write(`${text}\n`);
}
