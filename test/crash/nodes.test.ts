import { beforeAll, expect, it, onTestFinished } from "vitest";
import { replyList, replyNumber, replyText, type Redis } from "../../src/lib/redis/redis.ts";
import { eventually } from "../support/eventually.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
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
import {
  describeWithRedis,
  newPrefix,
  openTestRedis,
  startRedisSentinel,
  startRedisServer,
} from "../support/redis-server.ts";
import { compiledServer } from "../support/server-process.ts";
import { alicePassword, userFile } from "../support/start-proxy.ts";

const [limitOfBen, limitOfTeam] = [120, 160];
const team = 'default_group = "team"\n';
const users = {
  anna: userFile("anna", alicePassword),
  ben: userFile("ben", alicePassword).replace('"basic"', '"small"'),
  cleo: userFile("cleo", alicePassword, team),
  dora: userFile("dora", alicePassword, team),
};
const workersEach = 2;

const config = `
[quota.tiers.basic]
limits = [{ metric = "requests", per = "total", max = 1000000 }]
[quota.tiers.small]
limits = [{ metric = "requests", per = "total", max = ${limitOfBen} }]
[groups.team]
members = ["cleo", "dora"]
limits = [{ metric = "requests", per = "total", max = ${limitOfTeam} }]
[rate_limit]
requests_per_second = 100000
per_user = 100000
`;
/** Charges are awaited before they are shown: then a killed process may lose none either. */
const strict = '[storage]\ndurability = "strict"\n';

/**
 * Waits until nothing is held any more. Then all nodes agree, no limit is passed, and each user has used what was seen to
 * be charged, and nothing else, but for what of it is unknown.
 *
 * @param refused the statuses of chats that cannot have been charged
 */
async function expectExact(
  nodes: readonly FleetNode[],
  tokens: ReadonlyMap<string, string>,
  chats: readonly FleetChat[],
  refused: readonly number[],
): Promise<void> {
  const used = new Map<string, readonly number[]>();
  for (const [user, token] of tokens) {
    await eventually(async () => {
      const [first = [], ...others] = await usedAt(nodes, token);
      expect(others, user).toEqual(others.map(() => first));
      used.set(user, first);
    }, 30_000);
    const own = chats.filter((chat) => chat.user === user);
    const seen = own.filter(({ charged }) => charged).length;
    const unknown = own.filter(({ charged, status }) => !charged && !refused.includes(status)).length;
    const [total = -1] = used.get(user) ?? [];
    expect(total, `${user}: ${summaryOf(own)}`).toBeGreaterThanOrEqual(seen);
    expect(total, `${user}: ${summaryOf(own)}`).toBeLessThanOrEqual(seen + unknown);
  }
  const [ben = -1] = used.get("ben") ?? [];
  expect(ben).toBeLessThanOrEqual(limitOfBen);
  // Of a request that Redis was away for, a living process ends the group's part a moment after the user's.
  await eventually(async () => {
    const [[[cleo = -1, ofTeam = -1] = []], [[dora = -1] = []]] = [
      await usedAt(nodes, tokens.get("cleo") ?? ""),
      await usedAt(nodes, tokens.get("dora") ?? ""),
    ];
    expect(ofTeam).toBeLessThanOrEqual(limitOfTeam);
    expect(ofTeam).toBe(cleo + dora);
  }, 30_000);
}

/** Chats of one user at all nodes in turn, one at a time, until the limit is reached. */
async function useUp(nodes: readonly FleetNode[], user: string, token: string): Promise<readonly FleetChat[]> {
  const chats: FleetChat[] = [];
  while (chats.at(-1)?.status !== 402) {
    const chat = await chatOnce(nodes[chats.length % nodes.length]?.url ?? "", user, token);
    if (chat !== undefined) chats.push(chat);
    expect([200, 402]).toContain(chat?.status);
  }
  return chats;
}

/** Places that somebody has, by the leases in Redis. */
async function permitsHeld(redis: Redis): Promise<number> {
  const keys = replyList(await redis.send("", ["KEYS", `${redis.keyIn("*", "permit")}:*`])).map(replyText);
  const counts = keys.map((key) => redis.send(key, ["ZCOUNT", key, String(Date.now()), "+inf"]));
  return (await Promise.all(counts)).reduce<number>((sum, count) => sum + replyNumber(count), 0);
}

/** What holds quota, by the leases in Redis: also requests of dead processes, until others have ended them. */
async function quotaHeld(redis: Redis): Promise<readonly string[]> {
  const keys = redis.tags.map((tag) => redis.keyIn(tag, "leases"));
  const held = await Promise.all(keys.map((key) => redis.send(key, ["ZRANGE", key, "0", "-1"])));
  return held.flatMap((members) => replyList(members).map(replyText));
}

/** What dead processes held comes back within the lease, and only then are all accounts as they stay. */
async function expectNothingHeld(redis: Redis): Promise<void> {
  await eventually(async () => {
    expect([await permitsHeld(redis), await quotaHeld(redis)]).toEqual([0, []]);
  }, 30_000);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

describeWithRedis("several processes over one Redis lose no charge and double none", () => {
  beforeAll(() => {
    compiledServer();
  });

  it("where they are killed, and Redis is paused and restarted", async () => {
    const redis = await startRedisServer(["--appendonly", "yes", "--appendfsync", "always"]);
    onTestFinished(() => redis.close());
    const keyPrefix = newPrefix();
    const nodes = await startFleet({
      redisUrls: [redis.url, redis.url, redis.url],
      users,
      keyPrefix,
      config: strict + config,
    });
    const [one, two, three] = nodes;
    if (one === undefined || two === undefined || three === undefined) throw new Error("three were started");
    const tokens = await loginAll(one, Object.keys(users));
    const client = await openTestRedis({ url: redis.url, keyPrefix });
    const load = startFleetLoad({ nodes, tokens, workersEach });
    await eventually(async () => {
      expect(await permitsHeld(client)).toBeGreaterThan(0);
    });
    await load.more(30);
    await one.kill();
    await load.more(10);
    await redis.restart();
    await load.more(10);
    await one.start();
    await load.more(10);
    redis.pause();
    await two.kill();
    await pause(5000);
    redis.resume();
    await load.more(10);
    await Promise.all([three.kill(), redis.restart()]);
    await load.more(10);
    await Promise.all([two.start(), three.start()]);
    await load.more(10);
    await load.stop();
    await expectNothingHeld(client);

    expect(load.chats.filter(({ status }) => ![0, 200, 402, 429, 503].includes(status))).toEqual([]);
    await expectExact(nodes, tokens, load.chats, [402, 429]);
    const chats = [...load.chats];
    for (const user of ["ben", "cleo"]) chats.push(...(await useUp(nodes, user, tokens.get(user) ?? "")));
    await expectNothingHeld(client);
    await expectExact(nodes, tokens, chats, [402, 429]);
    for (const [user, limits] of Object.entries({ ben: [limitOfBen], cleo: [expect.any(Number), limitOfTeam] }))
      expect(await usedAt(nodes, tokens.get(user) ?? "")).toEqual(nodes.map(() => limits));
    await expectSameFolders(nodes);
  }, 240_000);

  it("where the primary dies and a replica takes its place", async () => {
    const { url, primary, close } = await startRedisSentinel(["--appendonly", "yes"]);
    onTestFinished(close);
    const keyPrefix = newPrefix();
    const nodes = await startFleet({ redisUrls: [url, url], users, keyPrefix, config });
    const [one] = nodes;
    if (one === undefined) throw new Error("two were started");
    const tokens = await loginAll(one, Object.keys(users));
    const load = startFleetLoad({ nodes, tokens, workersEach });
    await load.more(50);
    await primary.kill();
    for (const { url: of } of nodes) await load.more(20, of);
    await load.stop();

    expect(load.chats.filter(({ status }) => ![200, 402, 503].includes(status))).toEqual([]);
    await expectNothingHeld(await openTestRedis({ url, keyPrefix }));
    await expectExact(nodes, tokens, load.chats, [402, 503]);
    await expectSameFolders(nodes);
  }, 240_000);

  it("where one of them is cut off for longer than its leases last", async () => {
    const redis = await startRedisServer(["--appendonly", "yes"]);
    onTestFinished(() => redis.close());
    const network = await startFaultProxy(redis.url);
    onTestFinished(() => network.close());
    const keyPrefix = newPrefix();
    const nodes = await startFleet({ redisUrls: [redis.url, network.url], users, keyPrefix, config });
    const [other, cut] = nodes;
    if (other === undefined || cut === undefined) throw new Error("two were started");
    const tokens = await loginAll(other, Object.keys(users));
    const load = startFleetLoad({ nodes, tokens, workersEach });
    await load.more(20, cut.url);
    network.up.blackhole = network.down.blackhole = true;
    const refused = (): number => load.chats.filter(({ url, status }) => url === cut.url && status === 503).length;
    await Promise.all([
      pause(6000),
      load.more(20, other.url),
      eventually(() => {
        expect(refused()).toBeGreaterThan(5);
      }, 30_000),
    ]);
    network.up.blackhole = network.down.blackhole = false;
    await load.more(20, cut.url);
    await load.stop();

    expect(load.chats.filter(({ url, status }) => url === other.url && ![200, 402].includes(status))).toEqual([]);
    expect(load.chats.filter(({ status }) => ![200, 402, 503].includes(status))).toEqual([]);
    await expectNothingHeld(await openTestRedis({ url: redis.url, keyPrefix }));
    await expectExact(nodes, tokens, load.chats, [402, 503]);
    await expectSameFolders(nodes);
  }, 240_000);
});
