// Measures what it costs to keep the state in Redis: the proxy with its state in memory beside the proxy over Redis, on
// the same upstream, in alternating rounds; the CPU of Redis is counted apart. Then two proxies over that Redis beside one:
// on two cores these share them with Redis, the upstream and the load.
//
//   npm run bench:nodes                 about two minutes; needs redis-server
//   npm run bench:nodes -- --rounds 3
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createClient } from "@redis/client";
import { createRunning, startLoad, startProxy, startRedis, startUpstream } from "./processes.mjs";
import { burst, firstToken, json } from "./scenarios.mjs";
import { figure, table } from "./table.mjs";

const { values: options } = parseArgs({ options: { rounds: { type: "string" } } });
const rounds = Number(options.rounds ?? 8);
/** Redis shares the core of the load: if that never slept, Redis would wait for its turn, and the proxy for Redis. */
const size = { ms: 1500, sleeps: true };
const warmUp = { ms: 8000, sleeps: true };
/** One request after the other needs longer for as many: the slowest in a hundred are some dozens then. */
const idleMs = 4000;
const cpuName = "json: CPU per request, µs";

const dir = mkdtempSync(join(tmpdir(), "proxy-bench-"));
const { keep, stopAll } = createRunning();
const folder = (name) => {
  mkdirSync(join(dir, name));
  return join(dir, name);
};

try {
  const upstream = await keep(startUpstream(folder("upstream")));
  const load = await keep(startLoad(folder("load")));
  const redis = await keep(startRedis(folder("redis")));
  const client = createClient({ url: redis.url, socket: { reconnectStrategy: () => 50 } });
  client.on("error", () => undefined);
  await client.connect();
  const memory = await keep(startProxy(folder("memory"), upstream.url));
  const shared = await keep(startProxy(folder("shared"), upstream.url, "dist", { redis: redis.url }));
  const servers = { memory, redis: shared };

  for (const server of Object.values(servers))
    for (const scenario of [json, burst, firstToken]) await scenario(server, load, warmUp);
  const figures = { memory: [], redis: [] };
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? ["memory", "redis"] : ["redis", "memory"];
    const results = { memory: {}, redis: {} };
    for (const scenario of [json, burst, firstToken]) {
      for (const name of order) {
        const before = await redisUsage(client);
        const options = scenario === firstToken ? { ...size, ms: idleMs } : size;
        Object.assign(results[name], await scenario(servers[name], load, options));
        if (name === "redis" && scenario === json) {
          const after = await redisUsage(client);
          const requests = (results[name]["json: requests per second"] * size.ms) / 1000;
          results[name]["json: CPU of Redis per request, µs"] = (after.cpuUs - before.cpuUs) / requests;
          results[name]["json: calls of functions per request"] = (after.calls - before.calls) / requests;
        }
      }
    }
    for (const name of order) figures[name].push(results[name]);
  }
  const rows = Object.keys(figures.redis[0]).map((name) => {
    const [own, other] = [figures.memory, figures.redis].map((all) => all.map((one) => one[name]));
    if (own[0] === undefined) return [name, "", figure(median(other)), ""];
    const ratio = median(other.map((value, index) => value / own[index]));
    return [name, figure(median(own)), figure(median(other)), `${ratio.toFixed(2)}x`];
  });
  const machine = `${cpus()[0]?.model ?? "unknown CPU"}, ${availableParallelism()} cores, Node ${process.version}`;
  console.log(`${machine}; medians of ${rounds} rounds\n\n${table(["", "in memory", "over Redis", "ratio"], rows)}`);
  client.destroy();

  const second = await keep(startProxy(folder("second"), upstream.url, "dist", { redis: redis.url, isSecond: true }));
  const otherLoad = await keep(startLoad(folder("other-load")));
  await json(second, otherLoad, warmUp);
  const one = [];
  const two = [];
  for (let round = 0; round < rounds; round++) {
    one.push([await json(shared, load, size)]);
    two.push(await Promise.all([json(shared, load, size), json(second, otherLoad, size)]));
  }
  const perSecond = (all) => median(all.map((each) => sum(each.map((result) => result["json: requests per second"]))));
  const cpu = (all) => median(all.map((each) => sum(each.map((result) => result[cpuName])) / each.length));
  const both = [
    [
      "json: requests per second",
      figure(perSecond(one)),
      figure(perSecond(two)),
      ratioOf(perSecond(two), perSecond(one)),
    ],
    [cpuName, figure(cpu(one)), figure(cpu(two)), ratioOf(cpu(two), cpu(one))],
  ];
  console.log(`\n${table(["over Redis", "one process", "two processes", "ratio"], both)}`);
} finally {
  await stopAll();
  rmSync(dir, { recursive: true, force: true });
}

async function redisUsage(client) {
  const text = await client.sendCommand(["INFO", "all"]);
  const value = (name) => Number(new RegExp(`^${name}:([0-9.]+)`, "m").exec(text)?.[1] ?? 0);
  const calls = Number(/^cmdstat_fcall:calls=(\d+)/m.exec(text)?.[1] ?? 0);
  return { cpuUs: (value("used_cpu_user") + value("used_cpu_sys")) * 1e6, calls };
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

function ratioOf(value, other) {
  return `${(value / other).toFixed(2)}x`;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
