import { describe, expect, onTestFinished, test } from "vitest";
import { type CollectedSpan, type OtlpCollector, startOtlpCollector } from "../support/otlp-collector.ts";
import { type ScriptedUpstream, startScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream } from "../support/sse-client.ts";
import { alicePassword, bearer, post, startProxy, upstreamKey, type RunningProxy } from "../support/start-proxy.ts";

const traceId = "0af7651916cd43dd8448eb211c80319c";
const spanId = "b7ad6b7169203331";
const parent = { traceparent: `00-${traceId}-${spanId}-01`, tracestate: "shop=42" };
const prompt = "sentinel-prompt-77c1 sk-sentinel-secret-9d2f";

interface Setting {
  readonly upstream: ScriptedUpstream;
  readonly proxy: RunningProxy;
  readonly token: string;
}

async function start(
  telemetry: string,
  options: { env?: Record<string, string>; config?: string } = {},
): Promise<Setting> {
  const upstream = await startScriptedUpstream();
  const proxy = await startProxy({
    upstreamUrl: upstream.url,
    config: `[telemetry]\n${telemetry}\n[retry]\nbase_ms = 1\nmax_ms = 2\n${options.config ?? ""}`,
    ...(options.env === undefined ? {} : { env: options.env }),
  });
  onTestFinished(async () => {
    await proxy.dispose();
    await upstream.close();
  });
  return { upstream, proxy, token: await proxy.login() };
}

const endpoint = ({ url }: OtlpCollector): string => `otlp_endpoint = "${url}"`;
const chunk = (content: string, finish: string | null = null) => ({
  id: "chatcmpl-1",
  object: "chat.completion.chunk",
  model: "deepseek-chat-0324",
  created: 1,
  choices: [{ index: 0, delta: { content }, finish_reason: finish }],
});
const usage = {
  prompt_tokens: 30,
  completion_tokens: 20,
  total_tokens: 50,
  prompt_cache_hit_tokens: 10,
  completion_tokens_details: { reasoning_tokens: 5 },
};

function ask({ proxy, token }: Setting, headers: Record<string, string> = {}, more: object = {}) {
  return openStream(`${proxy.url}/v1/chat/completions`, {
    headers: { ...bearer(token), ...headers },
    body: { model: "deepseek-chat", stream: true, messages: [{ role: "user", content: prompt }], ...more },
  });
}

async function answer({ upstream }: Setting) {
  const call = await upstream.next();
  await call.event(chunk("Hello "));
  await call.event({ ...chunk("world", "stop"), usage });
  await call.done();
  call.end();
  return call;
}

/** One chat that goes well; the headers of a response come with its first event. */
async function chat(setting: Setting, headers: Record<string, string> = {}, more: object = {}) {
  const [client, call] = await Promise.all([ask(setting, headers, more), answer(setting)]);
  return { call, events: await client.rest() };
}

/** What the collector has once the proxy has stopped: the spans of logins are left out. */
async function spansAfter({ proxy }: Setting, collector: OtlpCollector): Promise<readonly CollectedSpan[]> {
  await proxy.stop();
  return collector.spans.filter(({ name }) => !name.includes("/auth/"));
}

describe("traces", () => {
  test("a request is one server span, with a client span for its attempt that a GenAI-aware reader understands", async () => {
    const collector = await startOtlpCollector();
    const setting = await start(endpoint(collector), {
      env: { OTEL_EXPORTER_OTLP_HEADERS: "x-team=a%20b,broken", OTEL_SERVICE_NAME: "gate" },
    });
    const { call } = await chat(
      setting,
      { ...parent, "x-request-id": "order-12345" },
      { temperature: 0.5, max_tokens: 99 },
    );
    const spans = await spansAfter(setting, collector);
    expect(spans).toHaveLength(2);
    const server = spans.find(({ kind }) => kind === 2);
    const attempt = spans.find(({ kind }) => kind === 3);
    expect(collector.headers[0]).toMatchObject({ ":path": "/v1/traces", "x-team": "a b" });

    expect(server).toMatchObject({
      name: "POST /v1/chat/completions",
      traceId,
      parentSpanId: spanId,
      traceState: "shop=42",
      status: 0,
      resource: { "service.name": "gate", "service.version": expect.any(String) as string },
      attributes: {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "user.id": "alice",
        "proxy.request_id": "order-12345",
        "proxy.outcome": "completed",
        "proxy.code": "ok",
      },
    });
    expect(Object.keys(server?.attributes ?? {}).filter((name) => name.startsWith("gen_ai"))).toEqual([]);
    expect(attempt).toMatchObject({
      name: "chat deepseek-chat",
      traceId,
      parentSpanId: server?.spanId,
      status: 0,
      attributes: {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "deepseek",
        "gen_ai.request.model": "deepseek-chat",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 99,
        "gen_ai.request.stream": true,
        "gen_ai.response.model": "deepseek-chat-0324",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 10,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "server.address": "127.0.0.1",
        "server.port": Number(new URL(setting.upstream.url).port),
        "openinference.span.kind": "LLM",
        "llm.model_name": "deepseek-chat",
        "llm.token_count.total": 50,
      },
    });
    // Seconds in attributes, nanoseconds in the span's own times; the attempt lies within the request.
    const firstToken = Number(attempt?.attributes["gen_ai.response.time_to_first_chunk"]);
    expect(firstToken).toBeGreaterThan(0);
    expect(firstToken * 1e9).toBeLessThan(Number((attempt?.end ?? 0n) - (attempt?.start ?? 0n)) + 1e9);
    expect(Math.abs(Number((server?.start ?? 0n) / 1_000_000n) - Date.now())).toBeLessThan(60_000);
    // The SDK begins each span at a whole millisecond of the clock.
    const ms = 1_000_000n;
    expect((server?.end ?? 0n) + ms >= (attempt?.end ?? 0n)).toBe(true);
    expect((server?.start ?? 0n) <= (attempt?.start ?? 0n) + ms).toBe(true);
    for (const span of spans) expect(span.events.map(({ name }) => name)).toEqual(["gen_ai.first_token"]);
    // The provider's own spans belong below the attempt.
    expect(call.headers).toMatchObject({
      traceparent: `00-${traceId}-${attempt?.spanId ?? ""}-01`,
      tracestate: "shop=42",
    });
  });

  test("each attempt has a span; a failed one names its kind of error", async () => {
    const collector = await startOtlpCollector();
    const setting = await start(endpoint(collector));
    const asking = ask(setting);
    (await setting.upstream.next()).respond(500, { error: { message: prompt } });
    const [client] = await Promise.all([asking, answer(setting)]);
    await client.rest();
    const spans = await spansAfter(setting, collector);
    const attempts = spans.filter(({ kind }) => kind === 3);
    expect(attempts.map(({ status }) => status)).toEqual([2, 0]);
    expect(attempts.map(({ attributes }) => attributes["proxy.attempt"])).toEqual([1, 2]);
    expect(attempts[0]?.attributes).toMatchObject({ "http.response.status_code": 500, "error.type": "server_error" });
    const server = spans.find(({ kind }) => kind === 2);
    expect(server?.events.map(({ name }) => name)).toEqual(["retry", "gen_ai.first_token"]);
    expect(new Set(spans.map((span) => span.traceId)).size).toBe(1);
  });

  test("by default no prompt, response, key or password is in any span", async () => {
    const collector = await startOtlpCollector();
    const setting = await start(endpoint(collector));
    await chat(setting, { "user-agent": "Bearer sentinel-agent-1234" });
    await post(`${setting.proxy.url}/auth/login?password=sentinel-query`, {
      username: "alice",
      password: "sentinel-word",
    });
    await fetch(`${setting.proxy.url}/no/sk-sentinel-path-1234?key=sentinel-query`);
    await setting.proxy.stop();
    expect(collector.spans.length).toBeGreaterThan(3);
    expect(collector.text).not.toContain("sentinel");
    expect(collector.text).not.toContain("Hello");
    for (const secret of [alicePassword, upstreamKey, setting.token]) expect(collector.text).not.toContain(secret);
  });

  test("with capture_content prompts and responses are there: bounded, and without what looks like a secret", async () => {
    const collector = await startOtlpCollector();
    const setting = await start(`${endpoint(collector)}\ncapture_content = true`);
    await chat(
      setting,
      {},
      {
        messages: [
          { role: "system", content: "x".repeat(100_000) },
          {
            role: "user",
            content: [
              { type: "text", text: prompt },
              { type: "image_url", image_url: { url: "data:" } },
            ],
          },
        ],
      },
    );
    const spans = await spansAfter(setting, collector);
    const { attributes } = spans.find(({ kind }) => kind === 3) ?? {};
    const input = JSON.parse(String(attributes?.["gen_ai.input.messages"])) as unknown[];
    expect(input[1]).toEqual({
      role: "user",
      parts: [{ type: "text", content: "sentinel-prompt-77c1 [redacted]" }, { type: "omitted" }],
    });
    expect(String(attributes?.["input.value"]).length).toBeLessThan(17_000);
    expect(JSON.parse(String(attributes?.["gen_ai.output.messages"]))).toEqual([
      { role: "assistant", parts: [{ type: "text", content: "Hello world" }], finish_reason: "stop" },
    ]);
  });

  test("what the caller does not record is not recorded, and its provider is told so", async () => {
    const collector = await startOtlpCollector();
    const setting = await start(endpoint(collector));
    const { call } = await chat(setting, { traceparent: `00-${traceId}-${spanId}-00` });
    expect(call.headers.traceparent).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-00$`));
    expect(await spansAfter(setting, collector)).toEqual([]);
  });

  test("without a collector the context is passed on as it came, and an invalid one is not", async () => {
    const setting = await start("");
    expect((await chat(setting, parent)).call.headers).toMatchObject(parent);
    expect((await chat(setting, { traceparent: "sentinel" })).call.headers).not.toHaveProperty("traceparent");
    expect(setting.proxy.services.tracing.records).toBe(false);
  });

  test("a collector that never answers fails no request; what is lost is counted", async () => {
    const collector = await startOtlpCollector(() => "never");
    const setting = await start(endpoint(collector));
    const { events } = await chat(setting);
    expect(events.at(-1)?.data).toBe("[DONE]");
    const { counts } = setting.proxy.services.tracing;
    await setting.proxy.stop();
    const { queued, exported, dropped } = counts?.() ?? { queued: -1, exported: -1, dropped: {} };
    expect(exported).toBe(0);
    expect(queued + Object.values(dropped).reduce((sum, count) => sum + count, 0)).toBe(3);
  });
});
