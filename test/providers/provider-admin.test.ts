import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import type { ProxyEvent } from "../../src/events/catalogue.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { createAlerts } from "../../src/providers/alerts.ts";
import { UpstreamError } from "../../src/providers/upstream-error.ts";
import { createProviderAdmin } from "../../src/providers/provider-admin.ts";
import { createProviderProbes, type ProviderProbes } from "../../src/providers/provider-probes.ts";
import { eventually } from "../support/eventually.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { passFor, testProvider } from "../support/provider.ts";

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const noProbes: ProviderProbes = {
  lastOf: () => null,
  learn: () => undefined,
  configure: () => undefined,
  close: () => undefined,
};

describe("the operator's view of a provider", () => {
  it("adds up its keys, and never names one", () => {
    const clock = createManualClock(1000);
    const keys = [0, 1].map((keyIndex) => testProvider("main", { keyIndex, apiKey: `sk-sentinel-${keyIndex}` }));
    const admin = createProviderAdmin({ providers: () => keys, probes: noProbes, capOf: () => 5, clock });
    expect(admin.list()).toMatchObject([{ name: "main", state: "up", errorRate: null, firstEventMs: null }]);

    const [first, second] = keys.map(({ health }) => health);
    first?.sent();
    first?.responded(passFor("m"), 10, 1000);
    first?.completed();
    second?.sent();
    second?.failed(
      passFor("m"),
      new UpstreamError({ kind: "rate_limited", stage: "first_event", retryAfterMs: 500 }),
      1000,
    );
    second?.sent();
    const [view] = admin.list();
    expect(view).toMatchObject({
      cap: 5,
      inFlight: 1,
      asked: 3,
      failed: 1,
      errorRate: 0.5,
      firstEventMs: { p50: 10, p90: 10, p99: 10 },
      state: "up",
      keys: [
        { key: 0, breaker: "closed", limitedForMs: 0 },
        {
          key: 1,
          breaker: "closed",
          limitedForMs: 0,
          circuits: [{ model: "m", breaker: "closed", limitedForMs: 500 }],
        },
      ],
    });
    expect(JSON.stringify(view)).not.toContain("sk-sentinel");
  });

  it("says that it is down where no key can be asked, and up again once the operator restores it", () => {
    const clock = createManualClock();
    const provider = testProvider("main");
    const admin = createProviderAdmin({ providers: () => [provider], probes: noProbes, capOf: () => 5, clock });
    const broken = new UpstreamError({ kind: "key_refused", stage: "first_event" });
    for (let i = 0; i < 2; i++) {
      provider.health.sent();
      provider.health.failed(passFor("m"), broken, 0);
    }
    expect(admin.list()[0]?.state).toBe("down");
    expect(admin.drain("main")).toBe(true);
    expect(admin.list()[0]?.state).toBe("drained");
    expect(admin.restore("main")).toBe(true);
    expect(admin.list()[0]?.state).toBe("up");
  });
});

describe("probes", () => {
  async function serve(status: number, body: string): Promise<{ readonly url: string; readonly paths: string[] }> {
    const paths: string[] = [];
    const server = createServer((request, response) => {
      paths.push(request.url ?? "");
      response.writeHead(status).end(body);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    closers.push(() => {
      server.close();
      server.closeAllConnections();
    });
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, paths };
  }

  function watch(url: string, kind: "deepseek" | "zhipu" = "deepseek") {
    const provider = testProvider("main", { kind, baseUrl: url });
    const alerts: string[] = [];
    const probes = createProviderProbes({
      clock: systemClock,
      random: Math.random,
      alerts: { raise: (_provider, what) => alerts.push(what) },
    });
    probes.configure([provider], 5);
    closers.push(
      () => provider.dispatcher.destroy(),
      () => {
        probes.close();
      },
    );
    return { probes, alerts, last: () => probes.lastOf(provider) };
  }

  it("read DeepSeek's balance, beside the versions of its API", async () => {
    const info = { currency: "CNY", total_balance: "110.00", granted_balance: "10.00", topped_up_balance: "100.00" };
    const { url, paths } = await serve(200, JSON.stringify({ is_available: true, balance_infos: [info] }));
    const { last, alerts } = watch(`${url}/v1`);
    await eventually(() => {
      const balance = { available: true, amounts: [{ currency: "CNY", total: "110.00" }] };
      expect(last()).toMatchObject({ ok: true, reason: null, balance });
    });
    expect(paths[0]).toBe("/user/balance");
    expect(alerts).toEqual([]);
  });

  it("call the operator where the balance does not suffice", async () => {
    const { url } = await serve(200, '{"is_available":false,"balance_infos":[]}');
    const { alerts } = watch(url);
    await eventually(() => {
      expect(alerts).toContain("no_balance");
    });
  });

  it("call the operator where the key is refused", async () => {
    const { url } = await serve(401, "Authentication Fails (governor)");
    const { last, alerts } = watch(url);
    await eventually(() => {
      expect(last()).toMatchObject({ ok: false, reason: "status 401" });
    });
    expect(alerts).toContain("key_refused");
  });

  it.each([
    [404, "{}", true, null],
    [500, "{}", false, "status 500"],
    [200, "<html>", false, "no JSON"],
  ])("take %i %s for what it is", async (status, body, ok, reason) => {
    const { url } = await serve(status, body);
    const { last } = watch(url);
    await eventually(() => {
      expect(last()).toMatchObject({ ok, reason, balance: null });
    });
  });

  it("ask for the models where the provider tells no balance, and say why nobody answered", async () => {
    const { url, paths } = await serve(200, "{}");
    const there = watch(`${url}/api`, "zhipu");
    await eventually(() => {
      expect(there.last()?.ok).toBe(true);
    });
    expect(paths[0]).toBe("/api/models");
    const gone = watch("http://127.0.0.1:9");
    await eventually(() => {
      expect(gone.last()).toMatchObject({ ok: false, reason: "ECONNREFUSED" });
    });
  });

  it("end when they are closed, and never begin where they are off", async () => {
    const { url, paths } = await serve(200, "{}");
    const { probes, last } = watch(url);
    await eventually(() => {
      expect(last()).not.toBeNull();
    });
    probes.close();
    const off = testProvider("off", { baseUrl: url });
    closers.push(() => off.dispatcher.destroy());
    const options = { clock: systemClock, random: () => 0 };
    createProviderProbes({ ...options, alerts: { raise: () => undefined } }).configure([off], 0);
    // One may have been under way.
    const asked = paths.length;
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(paths.length - asked).toBeLessThanOrEqual(1);
  });
});

describe("alerts", () => {
  it("are raised at most once a minute for a key and a kind", () => {
    const clock = createManualClock(5000);
    const events: ProxyEvent[] = [];
    const alerts = createAlerts({ emit: (event) => events.push(event), clock });
    const [first, second] = [testProvider("main"), testProvider("main", { keyIndex: 1 })];
    for (let i = 0; i < 10; i++) alerts.raise(first, "no_balance", "t");
    alerts.raise(first, "key_refused", "t");
    alerts.raise(second, "no_balance", "t");
    alerts.raise(second, "server_error", "t");
    expect(events.map((event) => event.type === "provider.alert" && [event.key, event.kind])).toEqual([
      [0, "no_balance"],
      [0, "key_refused"],
      [1, "no_balance"],
    ]);
    clock.advance(60_000);
    alerts.raise(first, "no_balance", "t");
    expect(events).toHaveLength(4);
    expect(events[0]).toEqual({
      type: "provider.alert",
      at: 5000,
      traceId: "t",
      ip: "",
      provider: "main",
      key: 0,
      kind: "no_balance",
    });
  });
});
