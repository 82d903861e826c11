import { expect, onTestFinished, test } from "vitest";
import { describeWithRedis, startRedisServer } from "../support/redis-server.ts";
import { eventually } from "../support/eventually.ts";
import { startProxy, type ProxyOptions } from "../support/start-proxy.ts";

async function start(options: ProxyOptions = {}) {
  const proxy = await startProxy(options);
  onTestFinished(() => proxy.dispose());
  return proxy;
}

test("a proxy is ready, though no provider can be reached, until it begins to shut down", async () => {
  const proxy = await start({ upstreamUrl: "http://127.0.0.1:9" });
  const ready = await fetch(`${proxy.url}/readyz`);
  expect([ready.status, await ready.json()]).toEqual([200, { status: "ok" }]);
  const health = await fetch(`${proxy.url}/healthz`);
  expect([health.status, health.headers.get("retry-after")]).toEqual([503, "1"]);
  const stopping = proxy.server.stop(0, 300);
  const late = await fetch(`${proxy.url}/readyz`);
  expect(late.headers.get("retry-after")).toBe("1");
  expect([late.status, await late.json()]).toEqual([503, { status: "not_ready", reason: "it is shutting down" }]);
  expect((await fetch(`${proxy.url}/livez`)).status).toBe(200);
  await stopping;
});

test("strangers learn no reasons, and no details", async () => {
  const proxy = await start({ upstreamUrl: "http://127.0.0.1:9", config: "[metrics]\nallow = []" });
  const stopping = proxy.server.stop(0, 300);
  expect(await (await fetch(`${proxy.url}/readyz`)).json()).toEqual({ status: "not_ready" });
  expect(await (await fetch(`${proxy.url}/healthz`)).json()).toEqual({ status: "failing" });
  await stopping;
});

test("health says for each component how long ago it last worked", async () => {
  const proxy = await start({ upstreamUrl: "http://127.0.0.1:9" });
  const body = (await (await fetch(`${proxy.url}/healthz`)).json()) as Record<string, Record<string, unknown>>;
  expect(Object.keys(body.last_success_seconds_ago ?? {})).toEqual(Object.keys(body.checks ?? {}));
  expect(body.last_success_seconds_ago).toMatchObject({ upstream: null, disk: expect.any(Number) as number });
});

describeWithRedis("over Redis", () => {
  test("a proxy is not ready while Redis is away", async () => {
    const redis = await startRedisServer();
    onTestFinished(() => redis.close());
    const proxy = await start({ redis: { url: redis.url, keyPrefix: "ready" } });
    expect((await fetch(`${proxy.url}/readyz`)).status).toBe(200);
    await redis.kill();
    await eventually(async () => {
      expect((await fetch(`${proxy.url}/readyz`)).status).toBe(503);
    });
    expect((await fetch(`${proxy.url}/livez`)).status).toBe(200);
    await redis.restart();
    await eventually(async () => {
      expect((await fetch(`${proxy.url}/readyz`)).status).toBe(200);
    }, 20_000);
  });
});
