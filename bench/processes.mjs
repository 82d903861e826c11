// Starts the processes of a benchmark and asks them for their figures.
import { spawn, spawnSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const password = "a password for the benchmark only";

/** Whoever is measured has one core to itself where there are two and Linux lets us say so. */
const pinner = "taskset";
const canPin = availableParallelism() >= 2 && spawnSync(pinner, ["-c", "0", "true"]).status === 0;
const measuredCore = "0";
const othersCore = "1";

/** Starts a Node program; resolves once it has said where it listens (or at once, where it doesn't). */
async function start(name, args, { dir, core, env = {}, listens = true, under = [], waitMs = 30_000 }) {
  const logFile = join(dir, `${name}.log`);
  const log = openSync(logFile, "w");
  const pinned = (to) => (canPin ? [pinner, "-c", to] : []);
  const tracer = under.length === 0 ? [] : [...pinned(othersCore), ...under];
  const command = [...tracer, ...pinned(core), process.execPath];
  // Into a file, because reading a pipe would be work for a process that shares the cores.
  const child = spawn(command[0], [...command.slice(1), ...args], {
    cwd: root,
    env: { ...process.env, NODE_ENV: "production", ...env },
    stdio: ["ignore", log, log, "ipc"],
  });
  closeSync(log);
  let gone = false;
  const exited = new Promise((resolve) => child.once("exit", resolve)).then(() => (gone = true));
  const ask = (message) =>
    new Promise((resolve, reject) => {
      child.once("message", resolve);
      child.send(message, (error) => error && reject(error));
    });
  const stop = async () => {
    child.kill("SIGTERM");
    const killer = setTimeout(() => child.kill("SIGKILL"), 15_000);
    await exited;
    clearTimeout(killer);
  };
  for (let waited = 0; listens; waited += 20) {
    const url = /"event":"listening".*?"url":"(http:[^"]+)"|"url":"(http:[^"]+)".*?"event":"listening"/.exec(
      readFileSync(logFile, "utf8"),
    );
    if (url !== null) return { name, url: url[1] ?? url[2], ask, stop };
    if (gone || waited > waitMs) {
      await stop();
      throw new Error(`${name} did not start:\n${readFileSync(logFile, "utf8")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { name, ask, stop };
}

const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
/** Both get the flags of `npm start`. */
const measured = [
  ...scripts.start.split(" ").filter((word) => word.startsWith("--")),
  "--expose-gc",
  "--import",
  join(root, "bench", "report-cpu.mjs"),
];

/** The processes of a run, so that all of them are stopped whatever happens. */
export function createRunning() {
  const running = [];
  return {
    async keep(starting) {
      const started = await starting;
      running.unshift(started);
      return started;
    },
    async stopAll() {
      for (const child of running) await child.stop();
    },
  };
}

export function startUpstream(dir) {
  return start("upstream", ["bench/upstream.mjs"], { dir, core: othersCore });
}

export function startLoad(dir) {
  return start("load", ["bench/load.mjs"], { dir, core: othersCore, listens: false });
}

/** Emits events as it is asked to. Alone on the machine: its threads write files on the other core. */
export function startEventWriter(dir) {
  const args = ["--max-semi-space-size=64", "bench/event-writer.mjs"];
  return start("events", args, { dir, core: `${measuredCore},${othersCore}`, listens: false });
}

/** A Redis of its own, with an append-only file that is synced every second. */
export async function startRedis(dir) {
  const port = String(20_000 + (process.pid % 20_000));
  const args = ["--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "yes"];
  const command = canPin ? [pinner, "-c", othersCore, "redis-server"] : ["redis-server"];
  const child = spawn(command[0], [...command.slice(1), ...args], { stdio: "ignore" });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  return {
    name: "redis",
    url: `redis://127.0.0.1:${port}`,
    async stop() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}

/** Bare fastify and undici. */
export async function startPassthrough(dir, upstreamUrl) {
  const env = { UPSTREAM_URL: upstreamUrl };
  const server = await start("passthrough", [...measured, "bench/passthrough.mjs"], { dir, core: measuredCore, env });
  return { ...server, token: "bench" };
}

/**
 * The proxy with everything on, and limits that nothing here reaches, unless they are given. Logs each user in once.
 *
 * @param program the compiled program, where it is not the one of this folder
 * @param changes `server` and `concurrency`: keys of these sections; `users`: names, the first of which gets
 *   `token`; `flags`: of Node; `redis`: the URL of what keeps the state; `isSecond`: it gets the other core; `sections`: more of
 *   the config; `env`: more variables; `under`: a command that it runs under; `waitMs`: how long it may take to start
 */
export async function startProxy(dir, upstreamUrl, program = "dist", changes = {}) {
  const {
    server: serverKeys = "",
    concurrency = "max_parallel = 10000",
    users = ["bench"],
    flags = [],
    redis,
    isSecond = false,
    sections = "",
    env: moreEnv = {},
    under,
    waitMs,
  } = changes;
  mkdirSync(join(dir, "users"), { recursive: true });
  for (const user of users) {
    writeFileSync(
      join(dir, "users", `${user}.toml`),
      `username = "${user}"\npassword = "${password}"\nquota_tier = "bench"\n`,
      { mode: 0o600 },
    );
  }
  const config = join(dir, "config.toml");
  writeFileSync(
    config,
    `[server]
host = "127.0.0.1"
port = 0
${serverKeys}

[[providers]]
name = "bench"
kind = "deepseek"
base_url = "${upstreamUrl}"
api_key_env = "BENCH_API_KEY"
models = ["*"]

${redis === undefined ? "" : '[state]\nbackend = "redis"\n'}
[rate_limit]
requests_per_second = 1000000

[concurrency]
${concurrency}

[quota.tiers.bench]
requests = 1000000000

${sections}`,
  );
  const env = { BENCH_API_KEY: "bench-key", DEEPSEEK_API_KEY: "bench-key", ...moreEnv };
  for (const name of ["HOST", "PORT", "CONFIG_FILE", "JWT_SECRETS", "JWT_SECRETS_FILE"]) env[name] = undefined;
  if (redis !== undefined) env.REDIS_URL = redis;
  const args = [...measured, ...flags, join(program, "main.js"), "--config", config];
  const core = isSecond ? othersCore : measuredCore;
  const server = await start("proxy", args, { dir, core, env, under, waitMs });
  try {
    const tokens = [];
    for (const username of users) tokens.push(await logIn(server.url, username));
    return { ...server, tokens, token: tokens[0] };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

async function logIn(url, username) {
  const response = await fetch(`${url}/auth/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ username, password }),
  });
  if (!response.ok) throw new Error(`the login failed: ${response.status} ${await response.text()}`);
  return (await response.json()).token;
}
