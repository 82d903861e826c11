import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream, type SseClient, type StreamRequest } from "../support/sse-client.ts";
import { alicePassword, bearer, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const body = { messages: [{ role: "user", content: "hello" }] };

describe("a provider whose circuit for a model has opened", () => {
  let upstream: ScriptedUpstream;
  let proxy: RunningProxy;
  let tokens: readonly string[];

  beforeEach(async () => {
    upstream = await startScriptedUpstream();
    proxy = await startProxy({
      upstreamUrl: upstream.url,
      config:
        "[retry]\nattempts = 1\n[breaker]\nfailures = 2\nopen_seconds = 60\n[rate_limit]\nrequests_per_second = 10000\n",
      users: {
        alice: userFile("alice", alicePassword, "max_parallel = 1000\n"),
        bob: userFile("bob", alicePassword, "max_parallel = 1000\n"),
      },
    });
    tokens = [await proxy.login("alice"), await proxy.login("bob")];
    for (const token of tokens) {
      const opening = ask("sick", token);
      (await upstream.next()).respond(500, { error: { message: "no" } });
      expect((await opening).status).toBe(502);
    }
  });

  afterEach(async () => {
    await proxy.dispose();
    await upstream.close();
  });

  function ask(model: string, token = tokens[0] ?? "", options: StreamRequest = {}): Promise<SseClient> {
    return openStream(`${proxy.url}/chat/completions`, {
      headers: bearer(token),
      body: { ...body, model },
      ...options,
    });
  }

  function circuits() {
    return proxy.services.providerAdmin.list()[0]?.keys[0]?.circuits;
  }

  it("P1: goes on serving its other models", async () => {
    expect(circuits()).toEqual([{ model: "sick", breaker: "open", limitedForMs: 0 }]);
    const other = ask("well");
    await (await upstream.next()).finish();
    expect((await other).status).toBe(200);
  });

  it("P2: gets trial requests where nobody else can be asked, and is in full service once they go well", async () => {
    const statuses: number[] = [];
    let received = upstream.received;
    for (let i = 0; i < 60 && circuits()?.length !== 0; i++) {
      const asking = ask("sick");
      const client = await Promise.race([
        asking,
        eventually(() => {
          expect(upstream.received).toBe(received + 1);
        }),
      ]);
      if (client === undefined) {
        received++;
        await (await upstream.next()).finish();
      }
      statuses.push((await asking).status);
    }
    expect(circuits()).toEqual([]);
    // The first one after the failures is a trial already.
    expect(statuses[0]).toBe(200);
    expect(new Set(statuses)).toEqual(new Set([200, 503]));
  });

  it("tells those whom it can't take when to come back", async () => {
    const trial = ask("sick");
    (await upstream.next()).respond(500, { error: { message: "still no" } });
    expect((await trial).status).toBe(502);
    const client = await ask("sick");
    expect(client.status).toBe(503);
    await client.ended;
    expect(JSON.parse(client.text)).toMatchObject({ error: { code: "upstream_unavailable" } });
    expect(client.headers["retry-after"]).toBe("1");
    expect(client.headers["x-should-retry"]).toBeUndefined();
    expect(await usedRequests(proxy, tokens[0] ?? "")).toBe(0);
  });

  it("shows in the metrics, by the provider's name", async () => {
    const text = await (await fetch(`${proxy.url}/metrics`)).text();
    expect(text).toContain('upstream_breakers_open{provider="upstream"} 1');
    expect(text).toContain('upstream_failures_total{provider="upstream"} 2');
    expect(text).toContain('upstream_requests_in_flight{provider="upstream"} 0');
  });
});
