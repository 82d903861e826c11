/**
 * The whole program under load while its file operations, connections and sockets fail at random from a fixed seed:
 * EMFILE, ENOSPC with parts of writes, EIO, refused and reset connections, in phases that last some seconds each. Its
 * clients complete answers, read slowly, disconnect, and send what is no request; the provider answers well, badly and
 * not at all.
 *
 * Exits with 1 where the process ends, where /livez takes a second, where quota, usage and metrics disagree, where they
 * are less than what clients received or more than what they asked for, where a request is never answered, and where a
 * restart changes any figure.
 *
 * npm run build && node scripts/attacks/stress.mjs [seconds, default 300] [seed]
 */
import { fork } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { request } from "undici";
import { createSimulator } from "../../dist/simulator/server.js";
import { createRandom } from "./random.mjs";

const seconds = Number(process.argv[2] ?? 300);
const seed = Number(process.argv[3] ?? Date.now() % 1e9);
/** Phases have numbers of their own: they are the same for the same seed, whatever clients do meanwhile. */
const random = createRandom(seed);
const phaseRandom = createRandom(seed + 1);
const users = Array.from({ length: 10 }, (_, i) => `user${i}`);
const clientsPerUser = 3;
const longestRequestMs = 40_000;
const password = "a password for this run only";

const one = (list, from = random) => list[Math.floor(from() * list.length)];
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const problems = [];
function fail(message) {
  problems.push(message);
  console.error(`FAILED: ${message}`);
}

/** What may fail for some seconds; the share of operations that do. */
const phases = [
  { name: "calm", disk: 0, files: 0, sockets: 0 },
  { name: "bad disk", disk: 0.05, files: 0, sockets: 0 },
  { name: "full disk", disk: 1, files: 0, sockets: 0 },
  { name: "no descriptors", disk: 0, files: 1, sockets: 0.3 },
  { name: "bad network", disk: 0, files: 0, sockets: 0.02 },
  { name: "everything", disk: 0.2, files: 0.2, sockets: 0.01 },
];

const models = [
  ...Array.from({ length: 12 }, () => "deepseek-flash"),
  "sim-reset",
  "sim-reset-mid",
  "sim-truncate",
  "sim-500",
  "sim-503",
  "sim-400",
  "sim-429",
  "sim-empty",
  "sim-no-done",
  "sim-html",
  "sim-stall-first",
  "sim-done-only",
];

const dir = mkdtempSync(join(tmpdir(), "stress-"));
const simulators = [];
for (let i = 0; i < 2; i++) simulators.push(await createSimulator({ firstTokenMs: 20, tokensPerSecond: 200 }));
mkdirSync(join(dir, "users"));
for (const name of users) {
  const account = `username = "${name}"\npassword = "${password}"\nquota_tier = "stress"\nmax_parallel = 100\n`;
  writeFileSync(join(dir, "users", `${name}.toml`), account, { mode: 0o600 });
}
writeFileSync(
  join(dir, "config.toml"),
  `[server]
host = "127.0.0.1"
port = 0
shutdown_seconds = 5
${simulators
  .map(
    ({ url }, i) => `
[[providers]]
name = "provider${i}"
kind = "deepseek"
base_url = "${url}"
api_key_env = "STRESS_KEY"
models = ["*"]
`,
  )
  .join("")}
[[models.prices]]
models = ["*"]
currency = "CNY"
cache_hit = 1
cache_miss = 2
output = 3
[timeouts]
first_event_seconds = 5
idle_seconds = 5
total_seconds = 30
[rate_limit]
requests_per_second = 100000
per_user = 100000
[concurrency]
max_parallel = 100
[quota.tiers.stress]
limits = [
  { metric = "requests", per = "month", max = 100000000 },
  { metric = "tokens", per = "month", max = 100000000000 },
  { metric = "cost", per = "month", max = 1000000 },
]
`,
);

function start() {
  const program = join(import.meta.dirname, "..", "..", "dist", "main.js");
  const child = fork(program, ["--config", join(dir, "config.toml")], {
    execArgv: ["--import", join(import.meta.dirname, "failing-system.mjs")],
    env: { ...process.env, STRESS_KEY: "key", CONFIG_FILE: undefined, HOST: undefined, PORT: undefined },
    stdio: ["ignore", "pipe", "pipe", "ipc"],
  });
  const events = new Map();
  const last = [];
  const server = { child, events, last, url: "", code: undefined };
  const ended = new Promise((resolve) => child.once("exit", (code, signal) => resolve(code ?? signal)));
  server.ended = ended.then((code) => (server.code = code));
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => {
      last.push(line);
      if (last.length > 50) last.shift();
      const event = /"event":"([^"]+)"/.exec(line)?.[1] ?? "none";
      events.set(event, (events.get(event) ?? 0) + 1);
      if (event === "listening") server.url = /"url":"([^"]+)"/.exec(line)?.[1] ?? "";
    });
  }
  server.order = (what) =>
    new Promise((resolve) => {
      child.once("message", resolve);
      child.send(what, (error) => (error === null ? undefined : resolve({})));
    });
  return server;
}

async function started() {
  const server = start();
  for (let i = 0; server.url === "" && server.code === undefined && i < 600; i++) await pause(50);
  if (server.url === "") throw new Error(`the program did not start:\n${server.last.join("\n")}`);
  return server;
}

const json = { "content-type": "application/json" };
const tally = new Map(
  users.map((name) => [name, { completed: 0, begun: 0, sent: 0, refused: 0, lost: 0, tokens: 0, token: "" }]),
);

async function logIn(url) {
  for (const [username, who] of tally) {
    const body = JSON.stringify({ username, password });
    const response = await fetch(`${url}/auth/login`, { method: "POST", headers: json, body });
    who.token = (await response.json()).token;
  }
}

/** A request, read to its end, or left. What came of it goes to the user's tally. */
async function ask(url, who) {
  const stream = random() < 0.7;
  const leaves = random() < 0.15;
  const isSlow = random() < 0.1;
  const messages = [{ role: "user", content: "Tell me something. ".repeat(1 + Math.floor(random() * 10)) }];
  const model = one(models);
  const body = random() < 0.03 ? '{"model": 3, ' : JSON.stringify({ model, messages, stream, max_tokens: 40 });
  const leaving = new AbortController();
  if (leaves) setTimeout(() => leaving.abort(), random() * 300).unref();
  const late = setTimeout(() => {
    fail(`a request was never answered: ${JSON.stringify({ model, stream, isSlow, end: text.slice(-200) })}`);
    leaving.abort();
  }, longestRequestMs);
  who.sent++;
  let text = "";
  try {
    const headers = { ...json, authorization: `Bearer ${who.token}` };
    const init = { method: "POST", headers, body, signal: leaving.signal };
    const response = await request(`${url}/v1/chat/completions`, init);
    if (response.statusCode !== 200) {
      await response.body.dump();
      who.refused++;
      return;
    }
    const decoder = new TextDecoder();
    for await (const bytes of response.body) {
      text += decoder.decode(bytes, { stream: true });
      if (isSlow) await pause(random() * 50);
    }
    const isComplete = stream ? text.includes("data: [DONE]") : JSON.parse(text).choices !== undefined;
    if (isComplete) {
      who.completed++;
      who.tokens += Number(/"total_tokens":\s*(\d+)/.exec(text)?.[1] ?? 0);
    } else who.begun++;
  } catch {
    // The connection broke or we left: whether it was charged is not known here.
    who.lost++;
  } finally {
    clearTimeout(late);
  }
}

let running = true;
async function client(url, who) {
  while (running) {
    await ask(url, who);
    await pause(random() * 60);
  }
}

let slowestMs = 0;
async function watch(url, server) {
  while (running && server.code === undefined) {
    const startedAt = performance.now();
    try {
      await (await fetch(`${url}/livez`, { signal: AbortSignal.timeout(5000) })).text();
    } catch (error) {
      // Sockets of this probe are made to fail as well; only silence counts.
      if (error.name === "TimeoutError") fail("/livez did not answer in 5 s");
    }
    slowestMs = Math.max(slowestMs, performance.now() - startedAt);
    await pause(100);
  }
}

async function figures(url) {
  const all = new Map();
  for (const [name, who] of tally) {
    const headers = { authorization: `Bearer ${who.token}` };
    const get = async (path) => {
      const response = await fetch(url + path, { headers });
      if (response.status !== 200) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`);
      return response.json();
    };
    const quota = await get("/auth/quota");
    const usage = await get("/auth/usage");
    const used = Object.fromEntries(
      quota.limits.map(({ metric, used: amount, reserved }) => [metric, { amount, reserved }]),
    );
    const sum = (of) => usage.rows.reduce((total, row) => total + of(row), 0);
    const cost = sum((row) => row.costs.reduce((total, { cost: units }) => total + Math.round(Number(units) * 1e9), 0));
    all.set(name, {
      requests: used.requests.amount,
      tokens: used.tokens.amount,
      costNano: Math.round(used.cost.amount * 1e9),
      reserved: used.requests.reserved + used.tokens.reserved + used.cost.reserved,
      history: { requests: sum((row) => row.requests), tokens: sum((row) => row.tokens), costNano: cost },
    });
  }
  return all;
}

let server = await started();
await server.order({ seed });
await logIn(server.url);
console.log(`seed ${seed}, ${seconds} s, ${users.length * clientsPerUser} clients`);
const watching = watch(server.url, server);
const clients = [...tally.values()].flatMap((who) =>
  Array.from({ length: clientsPerUser }, () => client(server.url, who)),
);
const endsAt = performance.now() + seconds * 1000;
let injected = {};
while (performance.now() < endsAt && server.code === undefined) {
  const { name, ...shares } = phaseRandom() < 0.3 ? phases[0] : one(phases, phaseRandom);
  injected = await server.order(shares);
  const sent = [...tally.values()].reduce((sum, who) => sum + who.sent, 0);
  console.log(`${name}: ${sent} requests sent, injected ${JSON.stringify(injected)}`);
  await Promise.race([pause(1000 + phaseRandom() * 5000), server.ended]);
}
running = false;
if (server.code === undefined) {
  injected = await server.order({ disk: 0, files: 0, sockets: 0 });
  await Promise.all(clients);
  await watching;
  // What the journal did not take is written within seconds, and what drains ends within its own times.
  await pause(5000);
  for (let i = 0; i < 100; i++) {
    if ([...(await figures(server.url)).values()].every(({ reserved }) => reserved === 0)) break;
    await pause(200);
  }
  const before = await figures(server.url);
  for (const [name, { history, reserved, ...used }] of before) {
    const { completed, begun, lost, tokens, token, ...rest } = tally.get(name);
    if (reserved !== 0) fail(`${name}: ${reserved} still reserved`);
    if (JSON.stringify(history) !== JSON.stringify(used))
      fail(`${name}: quota ${JSON.stringify(used)}, usage ${JSON.stringify(history)}`);
    if (used.requests < completed || used.requests > completed + begun + lost)
      fail(`${name}: ${used.requests} charged, ${JSON.stringify({ completed, begun, lost, ...rest })}`);
    if (used.tokens < tokens) fail(`${name}: ${used.tokens} tokens charged, ${tokens} received in completed answers`);
    void token;
  }
  server.child.kill("SIGTERM");
  const code = await Promise.race([server.ended, pause(20_000).then(() => "never")]);
  if (code !== 0) fail(`it ended with ${code} after SIGTERM:\n${server.last.slice(-5).join("\n")}`);
  const events = server.events;
  server = await started();
  const after = await figures(server.url);
  for (const [name, was] of before) {
    if (JSON.stringify(after.get(name)) !== JSON.stringify(was))
      fail(`${name}: ${JSON.stringify(was)} before the restart, ${JSON.stringify(after.get(name))} after it`);
  }
  server.child.kill("SIGTERM");
  await server.ended;
  console.log(`events: ${JSON.stringify(Object.fromEntries(events))}`);
} else fail(`the process ended with ${server.code}:\n${server.last.slice(-10).join("\n")}`);
if (slowestMs > 1000) fail(`/livez took ${Math.round(slowestMs)} ms`);
const sums = { sent: 0, completed: 0, begun: 0, refused: 0, lost: 0 };
for (const who of tally.values()) for (const key of Object.keys(sums)) sums[key] += who[key];
console.log(
  `seed ${seed}: ${JSON.stringify(sums)}, injected ${JSON.stringify(injected)}, slowest /livez ${Math.round(slowestMs)} ms`,
);
for (const simulator of simulators) await simulator.close();
if (problems.length === 0) rmSync(dir, { recursive: true, force: true });
else console.error(`${problems.length} problems; the folder is ${dir}`);
process.exit(problems.length === 0 ? 0 : 1);
