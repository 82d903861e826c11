import { expect, it } from "vitest";
import { createRedisLibrary } from "../../../src/redis-library.ts";
import { eventually } from "../../support/eventually.ts";
import { startFaultProxy } from "../../support/fault-proxy.ts";
import { createTimedLibrary } from "../../support/redis-ledger.ts";
import {
  describeWithRedis,
  newPrefix,
  openTestRedis,
  startRedisServer,
  useRedis,
  useRedisCluster,
} from "../../support/redis-server.ts";

describeWithRedis("the connection to Redis", () => {
  const redisServer = useRedis();

  it("sends commands, and spreads keys over the tags", async () => {
    const redis = await redisServer.open();
    const key = redis.keyIn(redis.tagOf("alice"), "doc", "users/alice");
    expect(key).toMatch(/^t[0-9a-f]+:\{0[0-9a-f]\}:doc:users\/alice$/);
    expect(await redis.send(key, ["SET", key, "x"])).toBe("OK");
    expect(await redis.send(key, ["GET", key])).toBe("x");
    expect(new Set(Array.from({ length: 200 }, (_, i) => redis.tagOf(`user-${i}`))).size).toBe(16);
  });

  it("rejects with what Redis says", async () => {
    const redis = await redisServer.open();
    await expect(redis.send("x", ["NONSENSE"])).rejects.toMatchObject({ name: "RedisReplyError" });
  });

  it("tells of changes that another connection makes", async () => {
    const keyPrefix = newPrefix();
    const [one, two] = [await redisServer.open({ keyPrefix }), await redisServer.open({ keyPrefix })];
    const changed: (string | null)[] = [];
    one.onChange("doc", (key) => changed.push(key));
    await eventually(() => {
      expect(changed).toContain(null);
    });
    const [seen, unseen] = [one.keyIn("00", "doc", "a"), one.keyIn("00", "acct", "a")];
    await two.send(unseen, ["SET", unseen, "1"]);
    await two.send(seen, ["SET", seen, "1"]);
    await eventually(() => {
      expect(changed).toContain(seen);
    });
    expect(changed).not.toContain(unseen);
  });

  it("repeats a call whose answer was lost", async () => {
    const proxy = await startFaultProxy(redisServer.server().url);
    const redis = await openTestRedis({ url: proxy.url });
    const key = redis.keyIn("00", "x");
    await redis.send(key, ["SET", key, "1"]);
    proxy.down.blackhole = true;
    const answer = redis.send(key, ["GET", key]);
    proxy.resetAll();
    proxy.down.blackhole = false;
    expect(await answer).toBe("1");
    expect(redis.status().repeated).toBeGreaterThan(0);
    await proxy.close();
  });

  it("gives up at the deadline where nothing comes back, and goes on when it does", async () => {
    const proxy = await startFaultProxy(redisServer.server().url);
    const redis = await openTestRedis({ url: proxy.url, timeoutMs: 300 });
    const key = redis.keyIn("00", "x");
    proxy.down.blackhole = true;
    await expect(redis.send(key, ["GET", key])).rejects.toMatchObject({ name: "RedisUnavailableError" });
    expect(redis.status().failed).toBe(1);
    proxy.down.blackhole = false;
    await eventually(async () => {
      expect(await redis.send(key, ["GET", key])).toBeNull();
    });
    await proxy.close();
  });

  it("says which version is needed where the server has no functions", async () => {
    const old = await startRedisServer(["--rename-command", "FUNCTION", ""]);
    const opened = openTestRedis({ url: old.url });
    await expect(opened).rejects.toThrow(/^it is [\d.]+ and has no functions \(FUNCTION LOAD\): Redis 7\.0 or Valkey/);
    await old.close();
  });

  it("goes on with its own functions where another version of the program has loaded others", async () => {
    const keyPrefix = newPrefix();
    const [own, newer] = [createRedisLibrary(), createTimedLibrary()];
    expect(own.name).not.toBe(newer.name);
    const before = await redisServer.open({ keyPrefix, library: own });
    const after = await redisServer.open({ keyPrefix, library: newer });
    for (const redis of [before, after, before]) {
      const leases = redis.keyIn("00", "leases");
      expect(await redis.call("ledger_extend", [leases], [1000, "x"])).toEqual([0]);
    }
  });

  it("refuses to start with a wrong login, and where there is nothing", async () => {
    const url = redisServer.server().url.replace("redis://", "redis://bob:wrong@");
    await expect(openTestRedis({ url })).rejects.toThrow("WRONGPASS");
  });
});

describeWithRedis("the connection to a cluster", () => {
  const cluster = useRedisCluster();

  it("finds the server of each key, and tells of changes on all of them", async () => {
    const keyPrefix = newPrefix();
    const [one, two] = [await cluster.open({ keyPrefix }), await cluster.open({ keyPrefix })];
    const changed: (string | null)[] = [];
    one.onChange("doc", (key) => changed.push(key));
    await eventually(() => {
      expect(changed.filter((key) => key === null)).toHaveLength(3);
    });
    const keys = one.tags.map((tag) => one.keyIn(tag, "doc", "a"));
    for (const key of keys) await two.send(key, ["SET", key, "1"]);
    await eventually(() => {
      expect(changed).toEqual(expect.arrayContaining(keys));
    });
    expect(await one.onEveryServer(["PING"])).toEqual(["PONG", "PONG", "PONG"]);
  });
});
