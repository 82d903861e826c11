import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { parseConfig } from "../src/config/load.ts";
import { systemClock as clock } from "../src/lib/clock.ts";
import { connectState, shareTokenSecret } from "../src/open-redis-state.ts";
import { createCapturedLog } from "./support/captured-log.ts";
import { describeWithRedis, newPrefix, startRedisServer, useRedis } from "./support/redis-server.ts";
import { tempDir } from "./support/temp-dir.ts";

const config = parseConfig('[state]\nbackend = "redis"\n', "test.toml");
const connect = (env: Record<string, string>, log = createCapturedLog()) => connectState({ env, config, clock, log });

it.each([
  [{}, "environment REDIS_URL: expected redis://"],
  [{ REDIS_URL: "http://bob:secret@h" }, "environment REDIS_URL: expected redis://"],
  [{ REDIS_URL: "redis://127.0.0.1:1" }, "REDIS_URL: Redis at 127.0.0.1:1 cannot be used"],
])("a start with %j says what is wrong, without secrets", async (env: Record<string, string>, message) => {
  const error = await connect(env).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ name: "ConfigError" });
  expect(String(error)).toContain(message);
  expect(String(error)).not.toContain("secret@");
});

describeWithRedis("the state in Redis", () => {
  const redisServer = useRedis();

  it("is refused where Redis would remove keys", async () => {
    const server = await startRedisServer(["--maxmemory-policy", "volatile-lru"]);
    try {
      await expect(connect({ REDIS_URL: server.url })).rejects.toThrow("set it to noeviction");
    } finally {
      await server.close();
    }
  });

  it("is opened with a word about settings that are worth one", async () => {
    const log = createCapturedLog();
    const redis = await connect({ REDIS_URL: redisServer.server().url }, log);
    expect(redis.status().connected).toBe(true);
    expect(log.lines.some((line) => JSON.stringify(line).includes("appendonly is no"))).toBe(true);
    await redis.close();
  });

  it("shares the secret of tokens among nodes, unless the environment names one", async () => {
    const keyPrefix = newPrefix();
    const folders = [tempDir(), tempDir()];
    for (const folder of folders) await shareTokenSecret(await redisServer.open({ keyPrefix }), folder, {});
    const [one, two] = await Promise.all(folders.map((folder) => readFile(join(folder, ".keys", "jwt"), "utf8")));
    expect(one).toMatch(/^auto-[0-9a-f]{8}:\S{64}\n$/);
    expect(two).toBe(one);
    const third = tempDir();
    await shareTokenSecret(await redisServer.open({ keyPrefix }), third, { JWT_SECRETS: "k:x" });
    await expect(readFile(join(third, ".keys", "jwt"))).rejects.toThrow("ENOENT");
  });
});
