import { Server } from "node:net";
import { afterEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { connectionCap, connectionsUnderFileLimit, openFileLimit } from "../../src/lib/files/open-file-limit.ts";
import type { LoadReading } from "../../src/lib/load-reading.ts";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";
import { answerOf, expectRefusal } from "../support/refusals.ts";
import { startScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream } from "../support/sse-client.ts";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const chat = { model: "sim-fast", messages: [{ role: "user", content: "hi" }] };
const calm: LoadReading = { loopDelayMs: 0, heapShare: 0, descriptorShare: 0 };

describe("an overloaded proxy", () => {
  let proxy: RunningProxy;
  let load = calm;

  afterEach(async () => {
    load = calm;
    await proxy.dispose();
  });

  async function start(): Promise<readonly [string, string]> {
    const users = {
      alice: userFile("alice", alicePassword),
      vip: userFile("vip", alicePassword).replace("basic", "premium"),
      root: userFile("root", alicePassword, 'roles = ["admin"]\n'),
    };
    const config = "[quota.tiers]\nbasic = { requests = 500 }\npremium = { requests = 500, weight = 4 }\n";
    proxy = await startProxy({ users, config, readLoad: () => load });
    return [await proxy.login(), await proxy.login("vip")];
  }

  async function become(next: Partial<LoadReading>): Promise<void> {
    load = { ...calm, ...next };
    const level = next.heapShare === undefined ? 0 : Math.min(1, (next.heapShare - 0.85) / 0.1);
    await eventually(() => {
      expect(proxy.services.overload.level()).toBeCloseTo(level, 6);
    });
  }

  const ask = async (token: string) => answerOf(await post(`${proxy.url}/v1/chat/completions`, chat, bearer(token)));
  const status = async (path: string, token?: string) =>
    (await fetch(proxy.url + path, { headers: token === undefined ? {} : bearer(token) })).status;

  it("refuses the lightest tier first, and never what operators need", async () => {
    const [basic, premium] = await start();
    const admin = await proxy.login("root");
    await become({ heapShare: 0.9 });
    const refused = await ask(basic);
    expectRefusal(proxy, refused, "proxy_overloaded");
    expect(refused.status).toBe(503);
    expect(Number(refused.headers["retry-after"])).toBeGreaterThanOrEqual(2);
    expect(Number(refused.headers["retry-after"])).toBeLessThanOrEqual(4);
    expect((await ask(premium)).status).toBe(200);

    await become({ heapShare: 0.99 });
    expectRefusal(proxy, await ask(premium), "proxy_overloaded");
    expectRefusal(proxy, await answerOf(await post(`${proxy.url}/auth/login`, {})), "proxy_overloaded");
    const message = await post(`${proxy.url}/anthropic/v1/messages`, chat, bearer(basic));
    expect(await message.json()).toMatchObject({ type: "error", error: { type: "overloaded_error" } });
    for (const path of ["/livez", "/healthz", "/metrics", "/v1/models"])
      expect([path, await status(path, basic)]).toEqual([path, 200]);
    expect(await status("/admin/users", admin)).toBe(200);
    expect(await (await fetch(`${proxy.url}/healthz`)).json()).toMatchObject({
      checks: { overload: { ok: true, level: 1, reason: "heap" } },
    });
    const metrics = await (await fetch(`${proxy.url}/metrics`)).text();
    expect(metrics).toContain("\nproxy_overload_level 1\n");
    expect(metrics).toContain('rate_limit_rejections_total{rule="overload"} 4');
    expect(proxy.logLines.filter((line) => line.includes('"overload.began"'))).toHaveLength(1);

    await become({});
    expect((await ask(basic)).status).toBe(200);
    expect(await usedRequests(proxy, basic)).toBe(1);
    expect([proxy.services.concurrency.inFlight(), proxy.services.gateway.running()]).toEqual([0, 0]);
  });

  it("serves to its end what runs already", async () => {
    const upstream = await startScriptedUpstream();
    proxy = await startProxy({ upstreamUrl: upstream.url, readLoad: () => load });
    const token = await proxy.login();
    const opening = openStream(`${proxy.url}/chat/completions`, { headers: bearer(token), body: chat });
    const call = await upstream.next();
    await call.delta("a");
    const client = await opening;
    await become({ heapShare: 1 });
    expectRefusal(proxy, await ask(token), "proxy_overloaded");
    await call.finish();
    expect((await client.rest()).at(-1)?.data).toBe("[DONE]");
    await upstream.close();
  });
});

describe("connections", () => {
  it("wait in a backlog as long as the config says", async () => {
    const listen = vi.spyOn(Server.prototype, "listen");
    onTestFinished(() => {
      listen.mockRestore();
    });
    const proxy = await startProxy({ server: "backlog = 1234\n" });
    expect(listen.mock.calls.flat()).toContainEqual(expect.objectContaining({ backlog: 1234 }));
    await proxy.dispose();
  });

  it("are never more than there are descriptors for", () => {
    expect([connectionCap(undefined, 500), connectionCap(100, 500), connectionCap(900, 500)]).toEqual([500, 100, 500]);
    expect(
      connectionCap(
        900,
        connectionsUnderFileLimit(() => "Max open files    1064   4096   files"),
      ),
    ).toBe(500);
    expect(openFileLimit(() => "Max open files    1064   4096   files")).toBe(1064);
  });
});
