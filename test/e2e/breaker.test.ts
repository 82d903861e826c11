import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { BreakerState } from "../../src/upstream/providers/breaker.ts";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream, type SseClient, type StreamRequest } from "../support/sse-client.ts";
import { alicePassword, bearer, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const body = { model: "m", messages: [{ role: "user", content: "hello" }] };

describe("a provider whose breaker has opened", () => {
  let upstream: ScriptedUpstream;
  let proxy: RunningProxy;
  let token: string;

  beforeEach(async () => {
    upstream = await startScriptedUpstream();
    proxy = await startProxy({
      upstreamUrl: upstream.url,
      config:
        "[retry]\nattempts = 1\n[breaker]\nfailures = 2\nopen_seconds = 0.15\n[rate_limit]\nrequests_per_second = 10000\n",
      users: { alice: userFile("alice", alicePassword, "max_parallel = 1000\n") },
    });
    token = await proxy.login();
    for (let i = 0; i < 2; i++) {
      const opening = ask();
      (await upstream.next()).respond(500, { error: { message: "no" } });
      expect((await opening).status).toBe(502);
    }
  });

  afterEach(async () => {
    await proxy.dispose();
    await upstream.close();
  });

  function ask(options: StreamRequest = {}): Promise<SseClient> {
    return openStream(`${proxy.url}/chat/completions`, { headers: bearer(token), body, ...options });
  }

  function breakerIs(state: BreakerState): Promise<void> {
    return eventually(() => {
      expect(proxy.services.providerAdmin.list()[0]?.keys[0]?.breaker).toBe(state);
    });
  }

  it("is not asked, and the client hears when to come back", async () => {
    const client = await ask();
    // A slow machine may find it half-open already; then the request is the probe.
    if (upstream.received > 2) (await upstream.next()).respond(500, {});
    else expect(client.status).toBe(503);
    await client.ended;
    expect(JSON.parse(client.text)).toMatchObject({ error: { code: "upstream_unavailable" } });
    expect(client.headers["retry-after"]).toBe("1");
    expect(client.headers["x-should-retry"]).toBeUndefined();
  });

  it("is asked by exactly one of 100 requests at once when its time is up, and by all when that one is answered", async () => {
    await breakerIs("half_open");
    const asking = Array.from({ length: 100 }, () => ask());
    const probe = await upstream.next();
    let refusals = 0;
    for (const each of asking) {
      void each.then((client) => {
        if (client.status === 503) refusals++;
      });
    }
    await eventually(() => {
      expect(refusals).toBe(99);
    });
    expect(upstream.received).toBe(3);
    await probe.delta("back again");
    await probe.finish();
    const clients = await Promise.all(asking);
    expect(clients.filter(({ status }) => status === 200)).toHaveLength(1);
    await breakerIs("closed");
    expect(await usedRequests(proxy, token)).toBe(1);

    const more = Array.from({ length: 10 }, () => ask());
    for (let i = 0; i < 10; i++) await (await upstream.next()).finish();
    for (const each of more) expect((await each).status).toBe(200);
  });

  it("is asked by the next request where the client of the first one left without an answer", async () => {
    await breakerIs("half_open");
    let leave = (): void => undefined;
    ask({ onSent: (go) => (leave = go) }).catch(() => undefined);
    const first = await upstream.next();
    leave();
    await first.closed;
    await eventually(() => {
      expect(proxy.services.chat.running()).toBe(0);
    });
    const second = ask();
    await (await upstream.next()).finish();
    expect((await second).status).toBe(200);
    await breakerIs("closed");
  });

  it("shows in the metrics, by the provider's name", async () => {
    const text = await (await fetch(`${proxy.url}/metrics`)).text();
    expect(text).toContain('upstream_breakers_open{provider="upstream"} 1');
    expect(text).toContain('upstream_failures_total{provider="upstream"} 2');
    expect(text).toContain('upstream_requests_in_flight{provider="upstream"} 0');
  });
});
