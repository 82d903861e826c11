import { beforeAll, expect, it, onTestFinished } from "vitest";
import { eventually } from "../support/eventually.ts";
import {
  chatOnce,
  expectSameFolders,
  loginAll,
  startFleet,
  startFleetLoad,
  summaryOf,
  usedAt,
  type FleetChat,
  type FleetNode,
} from "../support/node-fleet.ts";
import { describeWithRedis, startRedisServer, type RedisServer } from "../support/redis-server.ts";
import { compiledServer } from "../support/server-process.ts";
import { alicePassword, userFile } from "../support/start-proxy.ts";

const [limitOfUser, limitOfTeam, share] = [1000, 200, 0.25];
const team = 'default_group = "team"\n';
const users = {
  anna: userFile("anna", alicePassword),
  cleo: userFile("cleo", alicePassword, team),
  dora: userFile("dora", alicePassword, team),
};
const names = Object.keys(users);

/** The first lines belong to [state]. */
const config = `
when_away = "allowance"
allowance_share = ${share}
allowance_seconds = 8
timeout_ms = 500
[storage]
durability = "strict"
[quota.tiers.basic]
limits = [{ metric = "requests", per = "total", max = ${limitOfUser} }]
[groups.team]
members = ["cleo", "dora"]
limits = [{ metric = "requests", per = "total", max = ${limitOfTeam} }]
[rate_limit]
requests_per_second = 100000
per_user = 100000
`;

interface Fleet {
  readonly redis: RedisServer;
  readonly one: FleetNode;
  readonly two: FleetNode;
  readonly tokens: ReadonlyMap<string, string>;
  /** All that were made. */
  readonly chats: FleetChat[];
}

/** Two processes, each of which has made a chat of every user. */
async function startTwo(): Promise<Fleet> {
  const redis = await startRedisServer(["--appendonly", "yes", "--appendfsync", "always"]);
  onTestFinished(() => redis.close());
  const [one, two] = await startFleet({ redisUrls: [redis.url, redis.url], users, config });
  if (one === undefined || two === undefined) throw new Error("two were started");
  const tokens = await loginAll(one, names);
  const fleet: Fleet = { redis, one, two, tokens, chats: [] };
  for (const node of [one, two]) await serveAll(fleet, node);
  return fleet;
}

/** Chats of each user, now and then, until the process holds something in advance for all of them. */
async function serveAll({ tokens, chats }: Fleet, { url = "" }: FleetNode): Promise<void> {
  await eventually(async () => {
    for (const [user, token] of tokens) {
      const chat = await chatOnce(url, user, token);
      if (chat !== undefined) chats.push(chat);
      expect(chat?.done, user).toBe(true);
    }
    await pause(1000);
    expect(await metric(url, "allowance_held")).toBe(names.length);
  }, 60_000);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function metric(url: string | undefined, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const line = text.split("\n").find((one) => one.startsWith(`${name} `));
  return Number(line?.slice(name.length));
}

/** Chats at these processes, of which each serves from what it has in advance; the first is killed among them. */
async function serveAndKill({ tokens, chats }: Fleet, nodes: readonly FleetNode[]): Promise<void> {
  const [killed] = nodes;
  const urls = nodes.map(({ url }) => url);
  const load = startFleetLoad({ nodes, tokens, workersEach: 1 });
  for (const url of urls) await load.more(10, url);
  for (const url of urls) expect(await metric(url, "allowance_requests_total")).toBeGreaterThanOrEqual(10);
  await killed?.kill();
  await load.stop();
  chats.push(...load.chats);
  expect(load.chats.filter(({ status }) => ![0, 200, 503].includes(status))).toEqual([]);
}

/** Waits until nothing is held any more. Then each chat that was seen to be charged counts once, and nothing else does. */
async function expectExact({ tokens, chats }: Fleet, nodes: readonly FleetNode[]): Promise<void> {
  let ofTeam = 0;
  for (const [user, token] of tokens) {
    const own = chats.filter((chat) => chat.user === user);
    const seen = own.filter(({ charged }) => charged).length;
    // A killed process may have charged what nobody has seen.
    const unknown = own.filter(({ charged, status }) => !charged && [0, 200].includes(status)).length;
    const [first = [], ...others] = await usedWhenFree(nodes, token);
    expect(others, user).toEqual(others.map(() => first));
    const [total = -1, group] = first;
    expect(total, `${user}: ${summaryOf(own)}`).toBeGreaterThanOrEqual(seen);
    expect(total, `${user}: ${summaryOf(own)}`).toBeLessThanOrEqual(seen + unknown);
    ofTeam += group === undefined ? 0 : total;
  }
  const cleo = tokens.get("cleo") ?? "";
  expect(await usedWhenFree(nodes, cleo)).toEqual(nodes.map(() => [expect.any(Number), ofTeam]));
}

/** As usedAt, once what was held in advance has been given back, and everything is reported. */
async function usedWhenFree(nodes: readonly FleetNode[], token: string): Promise<readonly (readonly number[])[]> {
  let used: readonly (readonly number[])[] = [];
  await eventually(async () => {
    for (const { url } of nodes) expect(await metric(url, "allowance_unreported_charges")).toBe(0);
    used = await usedAt(nodes, token);
    // Leases of the killed process run for 16 s.
  }, 120_000);
  return used;
}

/** Chats of one user, one at a time, until no more are sold. */
async function useUp({ chats, tokens }: Fleet, { url = "" }: FleetNode, user: string): Promise<void> {
  for (;;) {
    const chat = await chatOnce(url, user, tokens.get(user) ?? "");
    if (chat !== undefined) chats.push(chat);
    expect([200, 402]).toContain(chat?.status);
    if (chat?.status === 402) return;
  }
}

describeWithRedis("a process that is killed while it serves without Redis loses no charge and doubles none", () => {
  beforeAll(() => {
    compiledServer();
  });

  it("where Redis hangs and goes on", async () => {
    const fleet = await startTwo();
    const { redis, one, two } = fleet;
    redis.pause();
    await serveAndKill(fleet, [one, two]);
    redis.resume();
    await one.start();
    await expectExact(fleet, [one, two]);
    await expectSameFolders([one, two]);
  }, 300_000);

  it("where Redis is killed too, and the process once more while it reports", async () => {
    const fleet = await startTwo();
    const { redis, one, two } = fleet;
    await redis.kill();
    await serveAndKill(fleet, [one, two]);
    await redis.restart();
    for (let round = 0; round < 3; round++) {
      await one.start();
      await one.kill();
    }
    await one.start();
    await expectExact(fleet, [one, two]);
    await expectSameFolders([one, two]);
  }, 300_000);

  it("where it comes back after others have sold the rest: no more is oversold than its share", async () => {
    const fleet = await startTwo();
    const { redis, one, two } = fleet;
    redis.pause();
    await serveAndKill(fleet, [one]);
    redis.resume();
    // What the killed process held comes back by its leases, and is sold.
    await usedWhenFree([two], fleet.tokens.get("cleo") ?? "");
    await useUp(fleet, two, "cleo");
    expect(await usedWhenFree([two], fleet.tokens.get("cleo") ?? "")).toEqual([[expect.any(Number), limitOfTeam]]);
    await one.start();
    await expectExact(fleet, [one, two]);
    const [[, ofTeam = -1] = []] = await usedWhenFree([one], fleet.tokens.get("cleo") ?? "");
    expect(ofTeam).toBeGreaterThan(limitOfTeam);
    expect(ofTeam).toBeLessThanOrEqual(limitOfTeam * (1 + share));
    await expectSameFolders([one, two]);
  }, 300_000);
});
