// How far one Redis goes, and what comes after it: the memory that a user's account takes, the time that Redis works for
// a request's decisions, measured with real calls; and how evenly a million users, of whom few are responsible for most
// requests, spread over 2 to 16 primaries, simulated with the real tags.
//
//   npm run bench:many-users                  about two minutes; needs redis-server
//   npm run bench:many-users -- --users 10000
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openRedis } from "../dist/lib/redis/open-redis.js";
import { parseRedisUrl } from "../dist/lib/redis/redis-url.js";
import { createRedisLedger } from "../dist/quota/redis/redis-ledger.js";
import { createRedisLibrary } from "../dist/redis-library.js";
import { startRedis } from "./processes.mjs";
import { table } from "./table.mjs";

const { values: options } = parseArgs({ options: { users: { type: "string" } } });
const users = Number(options.users ?? 100_000);
const million = 1_000_000;
const atOnce = 500;
const limits = [
  { metric: "requests", per: "day", max: 1_000_000 },
  { metric: "tokens", per: "month", max: 1_000_000_000 },
  { metric: "cost", per: "month", max: 1_000_000_000_000, currency: "CNY" },
];
const amount = (requests, tokens, cost) => ({ requests, tokens, cost, currency: "CNY" });
const log = { debug() {}, info() {}, warn: console.error, error: console.error };

const dir = mkdtempSync(join(tmpdir(), "proxy-bench-"));
const server = await startRedis(dir);
try {
  const redis = await connect(server.url);
  const ledger = createRedisLedger({
    redis,
    clock: { now: Date.now, monotonic: () => performance.now() },
    log,
    replica: noReplica(),
    newId: createIds(),
    quota: { timezone: "UTC", monthly_reset_day: 1 },
    state: { lease_seconds: 30, min_replicas: 0 },
    storage: { durability: "interval" },
  });
  await Promise.all(redis.tags.map((tag) => seed(redis, redis.keyIn(tag, "logseq"))));

  // The first thousand warm up.
  await serve(ledger, 0, 1000);
  const before = await usage(redis);
  await serve(ledger, 1000, users);
  const accounts = await usage(redis);
  await serve(ledger, 1000, users);
  const again = await usage(redis);
  const served = users - 1000;
  console.log(
    table(
      [`${served.toLocaleString("en")} users with a chat each, then another; three limits`, "first", "again"],
      [
        ["CPU of Redis per chat, µs", perOne(accounts.cpuUs - before.cpuUs), perOne(again.cpuUs - accounts.cpuUs)],
        ["memory that an account takes, bytes", perOne(accounts.bytes - before.bytes), ""],
      ],
    ),
  );
  function perOne(all) {
    return (all / served).toFixed(0);
  }
  await ledger.close();

  const loads = loadOfTags(redis);
  const rows = [1, 2, 4, 8, 16].map((primaries) => {
    const load = new Array(primaries).fill(0);
    for (const [index, share] of loads.entries()) load[index % primaries] += share;
    const busiest = Math.max(...load);
    return [String(primaries), `${(100 * busiest).toFixed(1)}%`, `${(1 / busiest).toFixed(1)}x`];
  });
  console.log();
  console.log(table(["a million users: primaries", "share of the busiest", "carries"], rows));
  redis.close();
} finally {
  await server.stop();
  rmSync(dir, { recursive: true, force: true });
}

/** The share of all requests that each tag has, if the n-th user of all makes 1/n of the requests of the first. */
function loadOfTags(redis) {
  const loads = new Map(redis.tags.map((tag) => [tag, 0]));
  let sum = 0;
  for (let rank = 1; rank <= million; rank++) {
    const tag = redis.tagOf(`user-${rank}`);
    loads.set(tag, (loads.get(tag) ?? 0) + 1 / rank);
    sum += 1 / rank;
  }
  return [...loads.values()].map((load) => load / sum);
}

async function connect(url) {
  for (let tries = 0; ; tries++) {
    try {
      const target = parseRedisUrl(url);
      return await openRedis({
        target,
        library: createRedisLibrary(),
        keyPrefix: "bench",
        timeoutMs: 5000,
        log,
        monotonic: () => performance.now(),
      });
    } catch (error) {
      if (tries === 20) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

/** A chat of each of these users: reserved, charged, settled. */
async function serve(ledger, from, to) {
  for (let start = from; start < to; start += atOnce) {
    const some = Array.from({ length: Math.min(atOnce, to - start) }, (_, index) => `user-${start + index}`);
    await Promise.all(some.map((user) => chat(ledger, user)));
  }
}

async function chat(ledger, user) {
  const upperBound = amount(1, 2000, 4_000_000);
  const hold = await ledger.reserve({ user, limits, requestId: `r-${user}`, model: "deepseek-flash", upperBound });
  await hold.commit(amount(1, 100, 200_000));
  await hold.settle({
    charge: amount(1, 600, 1_000_000),
    usage: { input: 100, cached: 0, output: 500, reasoning: 0 },
    outcome: "completed",
    estimated: false,
    price: "p",
  });
}

async function usage(redis) {
  // What processes read for their copies is trimmed once all have it.
  for (const tag of redis.tags)
    await redis.send(redis.keyIn(tag, "log"), ["XTRIM", redis.keyIn(tag, "log"), "MAXLEN", "0"]);
  const text = String(await redis.send(redis.keyIn(redis.tags[0], "bench"), ["INFO"]));
  const figure = (name) => Number(new RegExp(`^${name}:([\\d.]+)`, "m").exec(text)?.[1]);
  return {
    bytes: figure("used_memory_dataset"),
    cpuUs: (figure("used_cpu_user") + figure("used_cpu_sys")) * 1e6,
  };
}

/** The bench keeps no copy of its own. */
function noReplica() {
  return {
    lastSeq: () => 0,
    hasBegun: () => false,
    note() {},
    beforeOpening() {},
    recorded: () => Promise.resolve(),
    problems: () => [],
    repair: () => Promise.reject(new Error("nothing can be repaired")),
    usage: () => [],
    async *usageOfAll() {},
  };
}

async function seed(redis, key) {
  await redis.send(key, ["HSET", key, "epoch", "bench", "seq", "0"]);
}

function createIds() {
  let count = 0;
  return () => (count++).toString(36).padStart(12, "0");
}
