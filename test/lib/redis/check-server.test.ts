import { expect, it } from "vitest";
import { checkServer } from "../../../src/lib/redis/check-server.ts";
import { describeWithRedis, openTestRedis, startRedisServer, useRedis } from "../../support/redis-server.ts";

const relaxed = { strict: false, minReplicas: 0, now: () => Date.now() };
const strict = { ...relaxed, strict: true };

describeWithRedis("the check of Redis at the start", () => {
  const redisServer = useRedis();

  it.each([
    ["what keeps nothing is only worth a word", [], relaxed, [], ["appendonly is no"]],
    ["an append-only file is fine", ["--appendonly", "yes"], relaxed, [], []],
    ["eviction", ["--maxmemory-policy", "allkeys-lru"], relaxed, ["maxmemory-policy is allkeys-lru"], ["appendonly"]],
    ["no sync", ["--appendonly", "yes", "--appendfsync", "no"], relaxed, [], ["appendfsync is no"]],
    ["strict without a file", [], strict, ["appendonly is no, but storage.durability"], []],
    ["strict, once a second", ["--appendonly", "yes"], strict, ["appendfsync is everysec"], []],
    ["strict, always", ["--appendonly", "yes", "--appendfsync", "always"], strict, [], []],
    ["replicas", ["--appendonly", "yes"], { ...strict, minReplicas: 1 }, ["min-replicas-to-write is 0"], []],
    ["another clock", ["--appendonly", "yes"], { ...relaxed, now: () => Date.now() + 90_000 }, [], ["90 s apart"]],
  ])("%s", async (_name, args, needs, errors, warnings) => {
    const server = await startRedisServer(args);
    try {
      const found = await checkServer(await openTestRedis({ url: server.url }), needs);
      expect(found.errors).toEqual(errors.map((text) => expect.stringContaining(text) as unknown));
      expect(found.warnings).toEqual(warnings.map((text) => expect.stringContaining(text) as unknown));
    } finally {
      await server.close();
    }
  });

  it.each([
    ["3", "a newer proxy has written its keys (layout 3, this one knows 2)"],
    ["1", "an older proxy has written its keys (layout 1, this one knows 2)"],
    ["hello", "belongs to something else"],
  ])("refuses keys of layout %s", async (layout, message) => {
    const redis = await redisServer.open();
    const key = redis.keyIn("00", "layout");
    await redis.send(key, ["SET", key, layout]);
    expect((await checkServer(redis, relaxed)).errors).toEqual([expect.stringContaining(message)]);
  });

  it("refuses a key of another type", async () => {
    const redis = await redisServer.open();
    const key = redis.keyIn("00", "layout");
    await redis.send(key, ["LPUSH", key, "x"]);
    expect((await checkServer(redis, relaxed)).errors).toEqual([expect.stringContaining("belongs to something else")]);
  });

  it("says where the settings cannot be read", async () => {
    const redis = await redisServer.open();
    await redis.send("x", ["ACL", "SETUSER", "bob", "on", ">pw", "~*", "&*", "+@all", "-config"]);
    const url = redisServer.server().url.replace("redis://", "redis://bob:pw@");
    const { errors, warnings } = await checkServer(await openTestRedis({ url }), relaxed);
    expect(errors).toEqual([]);
    expect(warnings).toEqual([expect.stringContaining("settings cannot be read")]);
  });
});
