import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createSimulator, type Simulator } from "../../src/simulator/server.ts";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";
import { openStream } from "../support/sse-client.ts";
import { bearer, startProxy, type RunningProxy } from "../support/start-proxy.ts";

const beforeTheFirstEvent = [
  ["sim-400", 400, "invalid_request_error", "upstream_rejected"],
  ["sim-401", 503, "overloaded_error", "upstream_unavailable"],
  ["sim-402", 503, "overloaded_error", "upstream_unavailable"],
  ["sim-429:30", 429, "rate_limit_error", "upstream_rate_limited"],
  ["sim-500", 502, "api_error", "upstream_error"],
  ["sim-503", 503, "overloaded_error", "upstream_overloaded"],
  ["sim-html", 502, "api_error", "upstream_error"],
  ["sim-reset", 502, "api_error", "upstream_error"],
  ["sim-silent", 504, "timeout_error", "upstream_timeout"],
  ["sim-empty", 502, "api_error", "upstream_truncated"],
  ["sim-error-first", 503, "overloaded_error", "upstream_overloaded"],
  ["sim-bad-json:0", 502, "api_error", "upstream_invalid_response"],
] as const;

const inTheMiddle = [
  ["sim-truncate:1", "upstream_truncated"],
  ["sim-truncate:6", "upstream_truncated"],
  ["sim-done-only", "upstream_truncated"],
  ["sim-reset-mid:3", "upstream_error"],
  ["sim-stall:3", "upstream_timeout"],
  ["sim-error-event:3", "upstream_overloaded"],
  ["sim-bad-json:3", "upstream_invalid_response"],
  ["sim-insufficient", "upstream_overloaded"],
] as const;

const harmless = [
  "sim-fast",
  "sim-no-done",
  "sim-crlf",
  "sim-nospace",
  "sim-bytes",
  "sim-no-usage",
  "sim-zero-usage",
  "sim-cached",
  "sim-queue:20",
  "sim-tools",
  "sim-huge-event",
  "deepseek-flash",
] as const;

describe.each([true, false])("a provider of messages, with stream %s, that answers", (stream) => {
  let simulator: Simulator;
  let proxy: RunningProxy;
  let token: string;

  beforeAll(async () => {
    simulator = await createSimulator({ firstTokenMs: 0, tokensPerSecond: 200, keepAliveMs: 20 });
    proxy = await startProxy({
      upstreamUrl: simulator.url,
      config: `
[timeouts]
first_byte_seconds = 1
first_event_seconds = 1
idle_seconds = 0.5
[retry]
attempts = 2
base_ms = 1
max_ms = 2
max_retry_after_seconds = 0
[breaker]
failures = 10000
`,
    });
    token = await proxy.login();
  });

  afterAll(async () => {
    await proxy.dispose();
    await simulator.close();
  });

  afterEach(async () => {
    proxy.services.providerAdmin.restore("upstream");
    await eventually(() => {
      expect(proxy.services.concurrency.inFlight()).toBe(0);
      expect(simulator.stats().open).toBe(0);
    });
  });

  async function ask(model: string) {
    const before = await usedRequests(proxy, token);
    const body = { model, stream, max_tokens: 1000, messages: [{ role: "user", content: "hello" }] };
    const client = await openStream(`${proxy.url}/anthropic/v1/messages`, { headers: bearer(token), body });
    const events = stream ? await client.rest() : [];
    await client.ended;
    return { client, events, charged: (await usedRequests(proxy, token)) - before };
  }

  it.each(beforeTheFirstEvent)("%s is %i %s before the first event", async (model, status, type, code) => {
    const { client, charged } = await ask(model);
    expect(client.status).toBe(status);
    expect(JSON.parse(client.text)).toMatchObject({ type: "error", error: { type, code } });
    expect(charged).toBe(0);
  });

  it.each(inTheMiddle)("%s ends in %s and costs nothing", async (model, code) => {
    const { client, events, charged } = await ask(model);
    if (stream) {
      expect(client.status).toBe(200);
      expect(events[0]?.event).toBe("message_start");
      expect(events.at(-1)).toMatchObject({ event: "error", json: { type: "error", error: { code } } });
      expect(events.map(({ event }) => event)).not.toContain("message_stop");
    } else {
      expect(client.status).toBeGreaterThanOrEqual(502);
      expect(JSON.parse(client.text)).toMatchObject({ type: "error", error: { code } });
    }
    expect(charged).toBe(0);
  });

  it.each(harmless)("%s is complete", async (model) => {
    const { client, events, charged } = await ask(model);
    expect(client.status).toBe(200);
    if (stream) {
      expect(events.at(-1)).toMatchObject({ event: "message_stop", data: '{"type":"message_stop"}' });
      expect(events.map(({ event }) => event)).not.toContain("error");
    } else expect(JSON.parse(client.text)).toMatchObject({ type: "message", stop_reason: expect.any(String) });
    expect(charged).toBe(1);
  });
});
