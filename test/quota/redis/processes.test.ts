import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, it } from "vitest";
import { systemClock } from "../../../src/lib/clock.ts";
import { compileSrc } from "../../support/compiled-src.ts";
import { monthly } from "../../support/ledger.ts";
import { openTestRedisLedger, seedTags } from "../../support/redis-ledger.ts";
import { describeWithRedis, newPrefix, useRedis } from "../../support/redis-server.ts";
import { tempDir } from "../../support/temp-dir.ts";

const processes = 4;
const requests = 10_000;
const limits = [monthly(1000)];

/** Makes its share of the requests, many at a time, and says how many were charged in the end. */
const client = `
import { once } from "node:events";
import { createLibrary } from "./lib/redis/library.js";
import { openRedis } from "./lib/redis/open-redis.js";
import { parseRedisUrl } from "./lib/redis/redis-url.js";
import { openRedisLedger } from "./quota/redis/redis-ledger.js";
const [, , url, keyPrefix, limits, share] = process.argv;
const log = { debug() {}, info() {}, warn() {}, error(facts, message) { throw new Error(message); } };
const clock = { now: () => Date.now(), monotonic: () => performance.now() };
const parts = ["./replica/log.lua", "./quota/redis/ledger.lua"];
const library = createLibrary(parts.map((part) => new URL(part, import.meta.url)));
const redis = await openRedis({
  target: parseRedisUrl(url),
  library,
  keyPrefix,
  log,
  timeoutMs: 20_000,
  monotonic: clock.monotonic,
});
const replica = { lastSeq: () => 0, hasBegun: () => false, note() {}, beforeOpening() {}, repair: () => Promise.reject(new Error("lost")) };
const ledger = await openRedisLedger({
  redis,
  replica,
  clock,
  log,
  newId: () => String(process.pid),
  quota: { timezone: "Asia/Shanghai", monthly_reset_day: 1 },
  state: { lease_seconds: 30, min_replicas: 0 },
  storage: { durability: "interval" },
});
const charge = (requests) => ({ requests, tokens: 0, cost: 0, currency: "CNY" });
const usage = { input: 0, cached: 0, output: 0, reasoning: 0 };
let charged = 0;
async function request(number) {
  const ask = { user: "alice", limits: JSON.parse(limits), requestId: "r" + number, model: "m", upperBound: charge(1) };
  try {
    const hold = await ledger.reserve(ask);
    // Every fourth has no first event, and every fourth is rolled back after it.
    if (number % 4 > 0) await hold.commit(charge(1));
    const final = number % 4 > 1 ? charge(1) : charge(0);
    await hold.settle({ outcome: "completed", charge: final, usage, estimated: false, price: "" });
    charged += final.requests;
  } catch (error) {
    if (error.code !== "quota_exceeded") throw error;
  }
}
console.log("ready");
await once(process.stdin, "data");
let next = 0;
await Promise.all(Array.from({ length: 32 }, async () => {
  while (next < Number(share)) await request(next++);
}));
await ledger.close();
await redis.close();
process.stdin.destroy();
console.log(charged);
`;

describeWithRedis("several processes", () => {
  const { open, server } = useRedis();

  it(`let exactly 1000 of 10,000 requests on a user's last 1000 units succeed`, async () => {
    const keyPrefix = newPrefix();
    const redis = await open({ keyPrefix });
    await seedTags(redis);
    const code = tempDir();
    compileSrc(code, ["lib", "quota", "errors.ts", "replica/log.lua"]);
    writeFileSync(join(code, "client.js"), client);
    const given = [server().url, keyPrefix, JSON.stringify(limits), String(requests / processes)];
    const clients = Array.from({ length: processes }, () => {
      const child = spawn(process.execPath, [join(code, "client.js"), ...given], {
        stdio: ["pipe", "pipe", "inherit"],
      });
      const closed = once(child, "close");
      return { child, closed, lines: createInterface(child.stdout)[Symbol.asyncIterator]() };
    });
    // They begin together, or the first has taken everything before the last has loaded its program.
    for (const { lines } of clients) expect(await lines.next()).toMatchObject({ value: "ready" });
    for (const { child } of clients) child.stdin.write("go\n");
    const charged = await Promise.all(
      clients.map(async ({ closed, lines }) => {
        const said = await lines.next();
        expect((await closed)[0]).toBe(0);
        return Number(said.value);
      }),
    );
    expect(charged.reduce((a, b) => a + b)).toBe(1000);
    // All had their part.
    expect(Math.min(...charged)).toBeGreaterThan(0);
    const ledger = await openTestRedisLedger(redis, systemClock);
    expect(await ledger.buckets("alice", limits)).toMatchObject([{ used: 1000, reserved: 0 }]);
    // Six seconds on two cores, and thirty where others use them as well.
  }, 120_000);
});
