import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createSimulator, type Simulator } from "../../src/simulator/server.ts";
import { eventually } from "../support/eventually.ts";
import { startFaultProxy, type FaultProxy } from "../support/fault-proxy.ts";
import { usedRequests } from "../support/quota.ts";
import { openStream } from "../support/sse-client.ts";
import { alicePassword, bearer, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const messages = [{ role: "user", content: "hello" }];
const config = `
[timeouts]
idle_seconds = 1
[retry]
attempts = 2
base_ms = 1
max_ms = 2
max_retry_after_seconds = 0
[breaker]
failures = 10000
[rate_limit]
requests_per_second = 100000
[quota.tiers]
basic = { requests = 100000 }
`;

/** What each scripted fault is to the client: the code, its status, and how often the provider is asked. */
const beforeTheFirstEvent = [
  ["sim-400", 400, "invalid_request_error", 1],
  ["sim-422", 422, "invalid_request_error", 1],
  ["sim-401", 503, "upstream_unavailable", 1],
  ["sim-402", 503, "upstream_unavailable", 1],
  ["sim-429:30", 429, "upstream_rate_limited", 1],
  ["sim-500", 502, "upstream_error", 2],
  ["sim-503", 503, "upstream_overloaded", 2],
  ["sim-html", 502, "upstream_error", 2],
  ["sim-zhipu-error:1305", 429, "upstream_rate_limited", 1],
  ["sim-reset", 502, "upstream_error", 2],
  ["sim-silent", 504, "upstream_timeout", 1],
  ["sim-stall-first", 504, "upstream_timeout", 1],
  ["sim-empty", 502, "upstream_truncated", 2],
  ["sim-reset-mid:0", 502, "upstream_error", 2],
  ["sim-error-first", 503, "upstream_overloaded", 2],
  ["sim-bad-json:0", 502, "upstream_invalid_response", 2],
] as const;

/** N of the scenario: after the first event, in the middle, before the finish chunk that carries usage. */
const inTheMiddle = [
  ["sim-truncate:1", "upstream_truncated"],
  ["sim-truncate:6", "upstream_truncated"],
  ["sim-truncate:10", "upstream_truncated"],
  ["sim-reset-mid:1", "upstream_error"],
  ["sim-reset-mid:6", "upstream_error"],
  ["sim-reset-mid:10", "upstream_error"],
  ["sim-stall:1", "upstream_timeout"],
  ["sim-stall:10", "upstream_timeout"],
  ["sim-error-event:1", "upstream_overloaded"],
  ["sim-error-event:10", "upstream_overloaded"],
  ["sim-bad-json:1", "upstream_invalid_response"],
  ["sim-bad-json:10", "upstream_invalid_response"],
  ["sim-done-only", "upstream_truncated"],
  ["sim-insufficient", "upstream_overloaded"],
] as const;

const harmless = [
  "sim-fast",
  "sim-no-done",
  "sim-crlf",
  "sim-nospace",
  "sim-bytes",
  "sim-usage-after",
  "sim-zhipu",
  "sim-no-usage",
  "sim-zero-usage",
  "sim-cumulative",
  "sim-cached",
  "sim-queue:20",
  "sim-tools",
  "sim-huge-event",
] as const;

describe("every fault of a provider", () => {
  let simulator: Simulator;
  let proxy: RunningProxy;
  let token: string;

  beforeAll(async () => {
    simulator = await createSimulator({ firstTokenMs: 0, tokensPerSecond: 200, keepAliveMs: 20 });
    const times = "[timeouts]\nfirst_byte_seconds = 1.2\nfirst_event_seconds = 1.2\n";
    proxy = await startProxy({ upstreamUrl: simulator.url, config: config.replace("[timeouts]\n", times) });
    token = await proxy.login();
  });

  afterAll(async () => {
    await proxy.dispose();
    await simulator.close();
  });

  afterEach(async () => {
    // A limited account would refuse the next test's request without asking.
    proxy.services.providerAdmin.restore("upstream");
    await eventually(() => {
      expect(proxy.services.concurrency.inFlight()).toBe(0);
      expect(proxy.services.providerAdmin.list()[0]?.inFlight).toBe(0);
      expect(simulator.stats().open).toBe(0);
    });
  });

  async function chat(model: string, stream: boolean) {
    const asked = simulator.stats().requests;
    const client = await openStream(`${proxy.url}/chat/completions`, {
      headers: bearer(token),
      body: { model, stream, messages },
    });
    const events = stream ? await client.rest() : [];
    await client.ended;
    return { client, events, asked: simulator.stats().requests - asked };
  }

  describe.each([true, false])("with stream %s", (stream) => {
    it.each(beforeTheFirstEvent)("%s before the first event is %i %s", async (model, status, code, asked) => {
      const before = await usedRequests(proxy, token);
      const result = await chat(model, stream);
      expect(result.client.status).toBe(status);
      expect(JSON.parse(result.client.text)).toMatchObject({ error: { code } });
      expect(result.asked).toBe(asked);
      expect(result.client.headers["x-should-retry"]).toBe(asked > 1 ? "false" : undefined);
      expect(result.client.headers["retry-after"] === undefined).toBe(status !== 429 && status !== 503);
      expect(await usedRequests(proxy, token)).toBe(before);
    });

    it.each(inTheMiddle)("%s in the middle is %s, costs nothing and is not asked again", async (model, code) => {
      const before = await usedRequests(proxy, token);
      const { client, events, asked } = await chat(model, stream);
      expect(asked).toBe(1);
      if (stream) {
        expect(client.status).toBe(200);
        expect(events.length).toBeGreaterThan(1);
        expect(events.at(-1)?.json?.error).toMatchObject({ code });
        expect(events.map(({ data }) => data)).not.toContain("[DONE]");
      } else {
        expect(JSON.parse(client.text)).toMatchObject({ error: { code } });
        expect(client.status).toBeGreaterThanOrEqual(502);
      }
      expect(await usedRequests(proxy, token)).toBe(before);
    });

    it.each(harmless)("%s is no fault", async (model) => {
      const before = await usedRequests(proxy, token);
      const { client, events } = await chat(model, stream);
      expect(client.status).toBe(200);
      if (stream) expect(events.at(-1)?.data).toBe("[DONE]");
      else expect(JSON.parse(client.text)).toMatchObject({ object: "chat.completion" });
      expect(await usedRequests(proxy, token)).toBe(before + 1);
    });
  });
});

describe("a connection that mistreats what passes", () => {
  let simulator: Simulator;
  let wire: FaultProxy;
  let proxy: RunningProxy;
  let token: string;

  beforeAll(async () => {
    simulator = await createSimulator({ firstTokenMs: 0, tokensPerSecond: 0 });
    wire = await startFaultProxy(simulator.url);
    proxy = await startProxy({
      upstreamUrl: wire.url,
      config,
      users: { alice: userFile("alice", alicePassword, "max_parallel = 1000\n") },
    });
    token = await proxy.login();
  });

  afterAll(async () => {
    await proxy.dispose();
    await wire.close();
    await simulator.close();
  });

  function stream(model: string) {
    return openStream(`${proxy.url}/chat/completions`, { headers: bearer(token), body: { model, messages } });
  }

  /** The bytes that the provider sends for this model, without its [DONE]. */
  async function sentBy(model: string): Promise<string> {
    const body = { model, messages, stream: true };
    const direct = await openStream(`${simulator.url}/chat/completions`, { headers: bearer("any"), body });
    await direct.ended;
    return direct.text;
  }

  /** Ids and times differ from answer to answer. */
  function comparable(text: string): string {
    return text.replaceAll(/"id":"[^"]*"/g, "").replaceAll(/"created":\d+/g, "");
  }

  it.each([
    ["10,000 events", "sim-long:10000", 0],
    ["tool arguments of 64 KB, in slices of 7 bytes", "sim-big-tools:65536", 997],
    ["one event of 1 MB, in slices", "sim-huge-event:1048576", 8191],
    ["text cut in the middle of letters", "sim-fast", 1],
  ])("hands on %s byte for byte", async (_what, model, sliceBytes) => {
    const expected = comparable(await sentBy(model));
    wire.down.sliceBytes = sliceBytes;
    const client = await stream(model);
    expect(await client.ended).toBe("complete");
    wire.down.sliceBytes = 0;
    expect(comparable(client.text)).toBe(expected);
  });

  it("says upstream_error where the connection is reset in the middle of an event", async () => {
    wire.down.resetAfterBytes = 1500;
    // A connection of its own: the bytes of the pooled ones have been counted already.
    wire.resetAll();
    const client = await stream("sim-paced:200");
    const events = await client.rest();
    wire.down.resetAfterBytes = Infinity;
    expect(events.at(-1)?.json?.error).toMatchObject({ code: "upstream_error" });
    for (const { json } of events) expect(json).toBeDefined();
  });
});
