import OpenAI, { type ClientOptions } from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";
import { rawRequest, sendRaw } from "../support/raw-http.ts";
import { answerOf } from "../support/refusals.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { bearer, post, startProxy, type RunningProxy } from "../support/start-proxy.ts";

const good = { model: "deepseek-flash", messages: [{ role: "user" as const, content: "hi" }] };
const once = "[timeouts]\nheartbeat_seconds = 0.05\n[retry]\nattempts = 1\n";

describe("H11: who waits for one JSON, where chat.json_heartbeat is on", () => {
  let upstream: ScriptedUpstream;
  let proxy: RunningProxy;
  /** Its first blank line is far away. */
  let slow: RunningProxy;
  let token: string;

  beforeAll(async () => {
    upstream = await startScriptedUpstream();
    proxy = await startProxy({ upstreamUrl: upstream.url, config: `${once}[chat]\njson_heartbeat = true\n` });
    slow = await startProxy({ upstreamUrl: upstream.url, config: "[chat]\njson_heartbeat = true\n" });
    token = await proxy.login();
  });

  afterAll(async () => {
    await slow.dispose();
    await proxy.dispose();
    await upstream.close();
  });

  const request = (version = "1.1"): string =>
    rawRequest(
      "POST /v1/chat/completions",
      [`Authorization: Bearer ${token}`, "Content-Type: application/json"],
      JSON.stringify(good),
    ).replace("HTTP/1.1", `HTTP/${version}`);

  const sdk = (more: Partial<ClientOptions> = {}): OpenAI =>
    new OpenAI({ apiKey: token, baseURL: `${proxy.url}/v1`, maxRetries: 0, ...more });

  it("gets blank lines, and the JSON behind them, before and after the first event", async () => {
    const connection = sendRaw(proxy.url, request());
    const call = await upstream.next();
    const beats = (count: number) =>
      eventually(() => {
        expect(connection.received().match(/\r\n1\r\n\n\r\n/g)?.length ?? 0).toBeGreaterThanOrEqual(count);
      });
    await beats(1);
    const [head = ""] = connection.received().split("\r\n\r\n");
    expect(head).toMatch(/^HTTP\/1.1 200 [^]*content-type: application\/json[^]*x-accel-buffering: no/);
    expect(head).not.toMatch(/content-length/i);
    await call.delta("hello");
    await beats(3);
    await call.finish();
    await eventually(() => {
      expect(connection.received()).toMatch(/"content":"hello"[^]*\r\n0\r\n\r\n$/);
    });
    connection.socket.destroy();
  });

  it("is read by the SDK", async () => {
    const answering = sdk().chat.completions.create(good);
    const call = await upstream.next();
    await call.comment();
    await call.delta("hello");
    await call.finish();
    expect((await answering).choices[0]?.message.content).toBe("hello");
  });

  it("gets an error as that JSON where it fails behind the 200, and is charged nothing", async () => {
    const before = await usedRequests(proxy, token);
    // 0: it breaks off after its first event.
    const failures = [
      ["/v1/chat/completions", 500, "upstream_error"],
      ["/v1/chat/completions", 429, "upstream_rate_limited"],
      ["/v1/chat/completions", 400, "upstream_rejected"],
      ["/v1/chat/completions", 0, "upstream_truncated"],
      ["/anthropic/v1/messages", 500, "api_error"],
    ] as const;
    for (const [path, status, code] of failures) {
      const answering = post(proxy.url + path, { ...good, max_tokens: 10 }, bearer(token));
      const call = await upstream.next();
      // The headers come with the first blank line.
      const answer = await answering;
      if (status > 0) call.respond(status, { error: { message: "no" } });
      else await call.delta("hello").then(call.end);
      expect(answer.status).toBe(200);
      const body = await answer.text();
      expect(body).toMatch(/^\n+\{/);
      const told = JSON.parse(body) as { type?: string; error: object };
      const traceId = answer.headers.get("x-request-id");
      if (path.startsWith("/anthropic")) expect(told).toMatchObject({ type: "error", error: { type: code } });
      else expect(told).toMatchObject({ error: { code, message: expect.any(String), trace_id: traceId } });
      expect(told).not.toHaveProperty("choices");
    }
    expect(await usedRequests(proxy, token)).toBe(before);
  });

  it("gets it as an answer without choices from the SDK", async () => {
    let opened: () => void = () => undefined;
    const headers = new Promise<void>((resolve) => (opened = resolve));
    const watched: typeof fetch = async (...args) => {
      const response = await fetch(...args);
      opened();
      return response;
    };
    const answering = sdk({ fetch: watched }).chat.completions.create(good);
    const call = await upstream.next();
    await headers;
    call.respond(500, { error: { message: "broken" } });
    const answer = (await answering) as OpenAI.ChatCompletion & { error?: { code: string } };
    expect(answer.choices).toBeUndefined();
    expect(answer.error).toMatchObject({ code: "upstream_error" });
  });

  it("gets an honest status where it fails before the first blank line", async () => {
    const answer = await post(`${proxy.url}/v1/chat/completions`, { ...good, model: 5 }, bearer(token));
    expect(answer.status).toBe(400);
    expect(answer.headers.get("content-length")).not.toBeNull();
  });

  it("gets its Content-Length where the provider is quick", async () => {
    const answering = post(`${slow.url}/v1/chat/completions`, good, bearer(await slow.login()));
    const call = await upstream.next();
    await call.delta("hello");
    await call.finish();
    const answer = await answering;
    expect(Number(answer.headers.get("content-length"))).toBeGreaterThan(10);
    expect(await answer.json()).toMatchObject({ choices: [{ message: { content: "hello" } }] });
  });

  it("gets none of it by HTTP/1.0, which has no chunks", async () => {
    const connection = sendRaw(proxy.url, request("1.0"));
    const call = await upstream.next();
    await call.delta("hello");
    await call.finish();
    expect((await connection.answer()).body).toContain("hello");
  });
});

it("H11: who waits for one JSON gets an honest status, by default", async () => {
  const upstream = await startScriptedUpstream();
  const proxy = await startProxy({ upstreamUrl: upstream.url, config: once });
  const answering = post(`${proxy.url}/v1/chat/completions`, good, bearer(await proxy.login()));
  const call = await upstream.next();
  await call.comment();
  call.reset();
  const answer = await answerOf(await answering);
  expect(answer.status).toBe(502);
  expect(proxy.services.policy().config.chat.json_heartbeat).toBe(false);
  expect(answer.body).toMatch(/^\{"error"/);
  await proxy.dispose();
  await upstream.close();
});
