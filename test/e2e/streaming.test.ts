import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream, type SseClient } from "../support/sse-client.ts";
import { bearer, startProxy, type RunningProxy } from "../support/start-proxy.ts";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";

const hello = { model: "deepseek-flash", stream: true, messages: [{ role: "user", content: "hello" }] };

describe("a streamed chat", () => {
  let upstream: ScriptedUpstream;
  let proxy: RunningProxy;
  let token: string;

  beforeEach(async () => {
    upstream = await startScriptedUpstream();
    proxy = await startProxy({
      upstreamUrl: upstream.url,
      config:
        "[timeouts]\nidle_seconds = 0.3\nstalled_reader_seconds = 0.3\nfirst_event_seconds = 0.5\nheartbeat_seconds = 5\n[retry]\nattempts = 1\n",
    });
    token = await proxy.login();
  });

  afterEach(async () => {
    await proxy.dispose();
    await upstream.close();
  });

  function open(body: object = hello, path = "/chat/completions"): Promise<SseClient> {
    return openStream(`${proxy.url}${path}`, { headers: bearer(token), body });
  }

  function allFree(): void {
    expect(proxy.services.concurrency.inFlight()).toBe(0);
    expect(proxy.services.gateway.running()).toBe(0);
  }

  it("hands on the first event before the provider has sent the second", async () => {
    const opening = open();
    const call = await upstream.next();
    await call.delta("Hel");
    const client = await opening;
    const first = await client.nextEvent();
    expect(first?.json?.choices[0].delta.content).toBe("Hel");
    expect(client.headers["content-type"]).toMatch(/^text\/event-stream/);
    await call.delta("lo");
    expect((await client.nextEvent())?.json?.choices[0].delta.content).toBe("lo");
    await call.finish({ prompt_tokens: 5, completion_tokens: 2 });
    const rest = await client.rest();
    expect(rest.at(-1)?.data).toBe("[DONE]");
    expect(await client.ended).toBe("complete");
    expect(await usedRequests(proxy, token)).toBe(1);
    allFree();
  });

  it("asks the provider for a stream with usage, with the proxy's key and none of the client's headers", async () => {
    const opening = openStream(`${proxy.url}/v1/chat/completions`, {
      headers: { ...bearer(token), "x-forwarded-host": "evil", cookie: "a=b", "openai-organization": "mine" },
      body: '{"messages": [{"role":"user","content":"hi"}], "seed": 12345678901234567890, "model":"deepseek-chat" ,"stream":true}',
    });
    const call = await upstream.next();
    await call.delta("x");
    await opening;
    expect(call.headers.authorization).toMatch(/^Bearer sk-upstream-sentinel/);
    expect(Object.keys(call.headers).sort()).toEqual([
      "accept",
      "accept-encoding",
      "authorization",
      "connection",
      "content-length",
      "content-type",
      "host",
      "user-agent",
    ]);
    // Unknown fields and the spelling of numbers pass through untouched.
    expect(call.rawBody.toString()).toContain('"seed": 12345678901234567890');
    expect(call.body).toMatchObject({ stream: true, stream_options: { include_usage: true } });
    await call.finish();
  });

  it("charges nothing for comments alone", async () => {
    const opening = open();
    const call = await upstream.next();
    await call.comment("keep-alive");
    await call.comment("keep-alive");
    expect(await usedRequests(proxy, token)).toBe(0);
    call.end();
    const client = await opening;
    expect(client.status).toBe(502);
    expect(await usedRequests(proxy, token)).toBe(0);
    allFree();
  });

  it("closes the provider's connection and frees the permit when the client leaves in the middle", async () => {
    const opening = open();
    const call = await upstream.next();
    await call.delta("a");
    const client = await opening;
    await client.nextEvent();
    client.leave();
    await call.closed;
    expect(call.left).toBe(true);
    await eventually(allFree);
    expect(await usedRequests(proxy, token)).toBe(1);
  });

  it("charges nothing when the client leaves before the first event", async () => {
    let leave = (): void => undefined;
    const opening = openStream(`${proxy.url}/chat/completions`, {
      headers: bearer(token),
      body: hello,
      onSent: (go) => (leave = go),
    });
    opening.catch(() => undefined);
    const call = await upstream.next();
    leave();
    await call.closed;
    await eventually(allFree);
    expect(await usedRequests(proxy, token)).toBe(0);
  });

  it("ends a broken answer with an error event, without [DONE], and takes the charge back", async () => {
    const opening = open();
    const call = await upstream.next();
    await call.delta("half an ans");
    const client = await opening;
    await client.nextEvent();
    expect(await usedRequests(proxy, token)).toBe(1);
    call.end();
    const rest = await client.rest();
    expect(rest.map(({ data }) => data)).not.toContain("[DONE]");
    expect(rest.at(-1)?.json?.error).toMatchObject({ code: "upstream_truncated" });
    expect(rest.at(-1)?.json?.error?.trace_id).toBe(client.headers["x-request-id"]);
    expect(await usedRequests(proxy, token)).toBe(0);
    allFree();
  });

  it("never shows half an event, however the provider's bytes are cut off", async () => {
    const opening = open();
    const call = await upstream.next();
    await call.delta("whole");
    const client = await opening;
    await client.nextEvent();
    await call.send('data: {"choices":[{"index":0,"del');
    call.reset();
    const rest = await client.rest();
    expect(rest).toHaveLength(1);
    expect(rest[0]?.json?.error).toMatchObject({ code: "upstream_error" });
  });

  it("does not take [DONE] without a finish reason for an ending", async () => {
    const opening = open();
    const call = await upstream.next();
    await call.delta("a");
    await call.done();
    const rest = await (await opening).rest();
    expect(rest.map(({ data }) => data)).not.toContain("[DONE]");
    expect(rest.at(-1)?.json?.error).toMatchObject({ code: "upstream_truncated" });
    expect(await usedRequests(proxy, token)).toBe(0);
  });

  it("adds [DONE] to a finished answer whose provider forgot it", async () => {
    const opening = open();
    const call = await upstream.next();
    await call.event({ choices: [{ index: 0, delta: { content: "a" }, finish_reason: "stop" }] });
    call.end();
    const rest = await (await opening).rest();
    expect(rest.at(-1)?.data).toBe("[DONE]");
  });

  it("ends by the idle timer when the provider goes silent, comments notwithstanding", async () => {
    const opening = open();
    const call = await upstream.next();
    await call.delta("a");
    const client = await opening;
    const beat = setInterval(() => void call.comment("keep-alive").catch(() => undefined), 50);
    const rest = await client.rest();
    clearInterval(beat);
    expect(rest.at(-1)?.json?.error).toMatchObject({ code: "upstream_timeout" });
    await call.closed;
    expect(await usedRequests(proxy, token)).toBe(0);
    allFree();
  });

  it("answers 504 when the first event does not come in time", async () => {
    const opening = open();
    const call = await upstream.next();
    call.head();
    const client = await opening;
    expect(client.status).toBe(504);
    await call.closed;
    expect(await usedRequests(proxy, token)).toBe(0);
    allFree();
  });

  it("cuts off a client that stops reading, and frees everything", async () => {
    const opening = open();
    const call = await upstream.next();
    await call.delta("a");
    const client = await opening;
    client.pause();
    const big = "x".repeat(64 << 10);
    while (!call.left) {
      await Promise.race([call.delta(big).catch(() => undefined), call.closed]);
      // A turn for the rest: writes to a connection that is gone may fail without one.
      await new Promise(setImmediate);
    }
    await eventually(allFree);
    expect(call.left).toBe(true);
    // Redis may hear of the charge after the place is free.
    await eventually(async () => {
      expect(await usedRequests(proxy, token)).toBe(1);
    });
  });

  it("keeps OpenAI's usage chunk from a client that did not ask for it, and charges by it", async () => {
    const chunks = async (body: object): Promise<(string | undefined)[]> => {
      const opening = open(body);
      const call = await upstream.next();
      await call.event({ choices: [{ index: 0, delta: { content: "a" }, finish_reason: "stop" }] });
      await call.event({ choices: [], usage: { prompt_tokens: 7, completion_tokens: 3 } });
      await call.done();
      call.end();
      return (await (await opening).rest()).map(({ data }) => data);
    };
    expect((await chunks(hello)).join()).not.toContain("prompt_tokens");
    expect((await chunks({ ...hello, stream_options: { include_usage: true } })).join()).toContain("prompt_tokens");
  });

  it("collects one JSON where no stream is wanted", async () => {
    const opening = open({ ...hello, stream: undefined }, "/v1/chat/completions");
    const call = await upstream.next();
    await call.delta("Hel");
    await call.delta("lo");
    await call.finish({ prompt_tokens: 5, completion_tokens: 2 });
    const client = await opening;
    await client.ended;
    expect(client.headers["content-type"]).toMatch(/^application\/json/);
    expect(client.headers["x-quota-remaining"]).toBe("499");
    expect(JSON.parse(client.text)).toMatchObject({
      object: "chat.completion",
      choices: [{ message: { role: "assistant", content: "Hello" }, finish_reason: "stop" }],
      usage: { prompt_tokens: 5, completion_tokens: 2 },
    });
    expect(await usedRequests(proxy, token)).toBe(1);
  });
});
