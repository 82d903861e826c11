import { createClient } from "@redis/client";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { describeWithRedis, newPrefix, useRedis } from "../support/redis-server.ts";
import { bearer, post, skipOverRedis, startProxy, type ProxyOptions } from "../support/start-proxy.ts";

async function start(options: ProxyOptions) {
  const proxy = await startProxy(options);
  onTestFinished(() => proxy.dispose());
  return proxy;
}

describeWithRedis("forwarding", () => {
  const redis = useRedis();

  test("what happens in the proxy is in the Redis Stream, and counted", async () => {
    const stream = newPrefix();
    const proxy = await start({
      config: `[events.redis]\nstream = "${stream}"\nurl_env = "EVENTS_URL"\n[events.spool]\ntypes = ["login.*", "chat.*"]`,
      env: { EVENTS_URL: redis.server().url },
    });
    const token = await proxy.login();
    const chat = { model: "sim-fast", messages: [{ role: "user", content: "hi" }], stream: false };
    const response = await post(`${proxy.url}/chat/completions`, chat, bearer(token));
    expect(response.status).toBe(200);
    const client = createClient({ url: redis.server().url });
    await client.connect();
    onTestFinished(() => {
      client.destroy();
    });
    await eventually(async () => {
      expect(await client.xLen(stream)).toBe(2);
    });
    const entries = ((await client.xRange(stream, "-", "+")) ?? []).map(({ message }) => message);
    expect(entries.map(({ type }) => type)).toEqual(["deepseek-proxy.login.succeeded", "deepseek-proxy.chat.finished"]);
    expect(entries[1]).toMatchObject({ user: "alice", requestid: response.headers.get("x-request-id") });
    await eventually(() => {
      expect(proxy.services.forwarders()).toMatchObject([
        { sink: "redis", connected: true, forwarded: 2, lag: { events: 0 }, lost: {} },
      ]);
    });
    const metrics = await (await fetch(`${proxy.url}/metrics`)).text();
    expect(metrics).toContain('events_forwarded_total{sink="redis"} 2');
    expect(metrics).toContain('events_forwarder_lag{sink="redis"} 0');
    expect(metrics).toContain('events_lost_total{sink="redis",reason="spool_full"} 0');
    expect(metrics).toMatch(/events_spool_bytes [1-9]/);
  });
});

test("a sink that is away costs no request, and nothing is lost", async () => {
  skipOverRedis("REDIS_URL is that of the events");
  const proxy = await start({
    config: '[events.redis]\nstream = "events"\n[events.kafka]\ntopic = "events"',
    env: { REDIS_URL: "redis://127.0.0.1:1", KAFKA_BROKERS: "127.0.0.1:1" },
  });
  await proxy.login();
  await eventually(() => {
    for (const status of proxy.services.forwarders()) {
      expect(status).toMatchObject({ connected: false, lastError: expect.stringContaining("127.0.0.1:1") as string });
      expect(status.lag.events).toBeGreaterThan(0);
    }
  });
  expect(proxy.services.forwarders().map(({ sink }) => sink)).toEqual(["redis", "kafka"]);
});

test("without a sink there is no spool", async () => {
  const proxy = await start({});
  await proxy.login();
  expect(readdirSync(join(proxy.folder, "logs"))).not.toContain("spool");
  expect(proxy.services.forwarders()).toEqual([]);
  expect(await (await fetch(`${proxy.url}/metrics`)).text()).not.toContain("events_spool_bytes");
});

test.each([
  ['[events.redis]\nstream = "s"', {}, "environment REDIS_URL: expected redis://"],
  ['[events.redis]\nstream = "s"', { REDIS_URL: "http://:secret@x" }, "environment REDIS_URL: expected redis://"],
  ['[events.kafka]\ntopic = "t"', {}, "environment KAFKA_BROKERS: expected HOST:PORT"],
  ['[events.kafka]\ntopic = "t"', { KAFKA_BROKERS: "a:9092,b:x" }, 'got "b:x" as number 2'],
  [
    '[events.kafka]\ntopic = "t"\nsasl = "plain"',
    { KAFKA_BROKERS: "a:9092" },
    "environment KAFKA_USERNAME: expected a user, got nothing, but events.kafka.sasl is set",
  ],
  ['[events.spool]\ntypes = ["chats.*"]', {}, "expected * or types of events"],
])("%s with %j stops the start, and says what to do", async (config, env, message) => {
  if (config.startsWith("[events.redis]")) skipOverRedis("REDIS_URL is that of the events");
  const failed = startProxy({ config, env });
  await expect(failed).rejects.toThrow(message);
  await expect(failed).rejects.not.toThrow("secret");
});
