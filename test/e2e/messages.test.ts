import { describe, expect, it } from "vitest";
import { nothing, priced, startBilledProxy, weight, type BilledOptions } from "../support/billed-proxy.ts";
import {
  answerMessage,
  messageDelta,
  messageEvent,
  messageStart,
  messageStop,
  messageText,
  messageUsage,
  textDelta,
} from "../support/message-events.ts";
import { upstreamKey } from "../support/start-proxy.ts";

const path = "/anthropic/v1/messages";
const body = { model: "flash", max_tokens: 10, system: "Be brief.", messages: [{ role: "user", content: "Hello" }] };
const streamed = { ...body, stream: true };
const { input, cached, output } = messageUsage;
const exact = priced(input, output, { cached });

/** A streamed message of which the first event has come. */
async function reading(options: BilledOptions = {}) {
  const billed = await startBilledProxy(options);
  const asking = billed.ask(path, streamed);
  const call = await billed.upstream.next();
  await call.send(messageStart);
  const client = await asking;
  await client.nextEvent();
  return { ...billed, call, client };
}

describe("a message in Anthropic's shape", () => {
  it("is streamed byte for byte but for pings, and billed by what its start and its end report", async () => {
    const { call, client, used, logged } = await reading();
    expect(call.url).toBe(path);
    expect(call.body).toEqual(streamed);
    expect(call.headers).toMatchObject({
      "x-api-key": upstreamKey,
      authorization: `Bearer ${upstreamKey}`,
      "anthropic-version": "2023-06-01",
      accept: "text/event-stream",
    });
    await call.send([...messageText, messageDelta(), messageStop].join(""));
    call.end();
    await client.rest();
    const text = messageText.filter((event) => !event.includes('"ping"'));
    expect(client.text).toBe([messageStart, ...text, messageDelta(), messageStop].join(""));
    expect(client.headers["content-type"]).toMatch(/^text\/event-stream/);
    expect(await used()).toEqual(exact);
    expect(await logged()).toMatchObject({ outcome: "completed", estimated: false, input_tokens: 20 });
  });

  it("is collected into one JSON where no stream is wanted", async () => {
    const billed = await startBilledProxy();
    const asking = billed.ask(path, body);
    const call = await billed.upstream.next();
    expect(call.body).toEqual(streamed);
    await answerMessage(call);
    const client = await asking;
    await client.ended;
    expect(client.headers["content-type"]).toMatch(/^application\/json/);
    expect(JSON.parse(client.text)).toEqual({
      id: "msg_1",
      type: "message",
      role: "assistant",
      model: "flash",
      content: [{ type: "text", text: "Hello 你好 🎉" }],
      stop_reason: "end_turn",
      stop_sequence: null,
      usage: { input_tokens: 12, cache_creation_input_tokens: 3, cache_read_input_tokens: 5, output_tokens: 7 },
    });
    expect(await billed.used()).toEqual(exact);
  });

  it("may be authenticated by x-api-key", async () => {
    const billed = await startBilledProxy();
    const token = await billed.proxy.login();
    const asking = billed.ask(path, streamed, { authorization: "", "x-api-key": token });
    await answerMessage(await billed.upstream.next());
    const client = await asking;
    expect(client.status).toBe(200);
    const refused = await billed.ask(path, streamed, { authorization: "", "x-api-key": "made-up" });
    await refused.ended;
    expect(refused.status).toBe(401);
    expect(JSON.parse(refused.text)).toMatchObject({ type: "error", error: { type: "authentication_error" } });
  });

  it("is charged at the first event that is neither a ping nor an error", async () => {
    const billed = await startBilledProxy({ config: "[timeouts]\nheartbeat_seconds = 0.05\n" });
    const asking = billed.ask(path, streamed);
    const call = await billed.upstream.next();
    await call.send(messageEvent("ping"));
    // A heartbeat of our own has committed the 200; the provider's ping is not what came.
    const client = await asking;
    const first = await client.nextEvent();
    expect(first).toMatchObject({ event: "ping", data: '{"type":"ping"}' });
    const limits = await billed.used().catch((error: unknown) => String(error));
    expect(limits).toContain("still running");
    await call.send(messageEvent("error", { error: { type: "overloaded_error", message: "Overloaded" } }));
    const events = await client.rest();
    expect(events.at(-1)).toMatchObject({
      event: "error",
      json: { type: "error", error: { type: "overloaded_error" } },
    });
    expect(await billed.used()).toEqual(nothing);
  });

  it.each([
    ["stop_reason is missing", [...messageText, messageStop]],
    ["all but the start is missing", []],
  ])("ends with an error event and no message_stop where %s, and costs nothing", async (_, events) => {
    const { call, client, used, logged } = await reading();
    if (events.length > 0) await call.send(events.join(""));
    call.end();
    const last = (await client.rest()).at(-1);
    expect(last?.event).toBe("error");
    expect(last?.json).toMatchObject({
      type: "error",
      error: { type: "api_error", code: "upstream_truncated", trace_id: client.headers["x-request-id"] },
    });
    expect(client.text).not.toContain("message_stop");
    expect(await used()).toEqual(nothing);
    expect(await logged()).toMatchObject({ outcome: "upstream_failed", code: "upstream_truncated" });
  });

  it("that lacks its message_stop alone is complete: the proxy ends it, and bills what was reported", async () => {
    const { call, client, used } = await reading();
    await call.send([...messageText, messageDelta()].join(""));
    call.end();
    expect((await client.rest()).at(-1)).toMatchObject({ event: "message_stop" });
    expect(await used()).toEqual(exact);
  });

  it("that fails in mid-stream ends with an error event in Anthropic's words", async () => {
    const { call, client, used } = await reading();
    await call.send(messageEvent("error", { error: { type: "overloaded_error", message: "Overloaded" } }));
    const last = (await client.rest()).at(-1);
    expect(last).toMatchObject({ event: "error", json: { error: { type: "overloaded_error" } } });
    expect(await used()).toEqual(nothing);
  });

  it("whose usage comes late, after zeros, is billed by the last that was said", async () => {
    const billed = await startBilledProxy();
    const asking = billed.ask(path, body);
    const call = await billed.upstream.next();
    const zeros = messageEvent("message_start", { message: { usage: { input_tokens: 0, output_tokens: 0 } } });
    const last = { input_tokens: 40, cache_read_input_tokens: 10, output_tokens: 6 };
    await call.send(
      [zeros, ...messageText, messageDelta({ output_tokens: 2 }), messageDelta(last), messageStop].join(""),
    );
    call.end();
    expect((await asking).status).toBe(200);
    expect(await billed.used()).toEqual(priced(50, 6, { cached: 10 }));
  });

  it("whose usage comes first, before zeros, is billed by what was said of the prompt", async () => {
    const billed = await startBilledProxy();
    const asking = billed.ask(path, body);
    const call = await billed.upstream.next();
    const zeros = { input_tokens: 0, cache_read_input_tokens: 0, output_tokens: 6 };
    await call.send([messageStart, ...messageText, messageDelta(zeros), messageStop].join(""));
    call.end();
    expect((await asking).status).toBe(200);
    expect(await billed.used()).toEqual(priced(input, 6, { cached }));
  });

  it.each([undefined, { input_tokens: 0, output_tokens: 0 }, { input_tokens: null }])(
    "whose prompt is never counted, but begins with %j, is estimated",
    async (usage) => {
      const billed = await startBilledProxy();
      const asking = billed.ask(path, body);
      const call = await billed.upstream.next();
      const start = messageEvent("message_start", { message: { usage } });
      await call.send([start, ...messageText, messageDelta({ output_tokens: 7 }), messageStop].join(""));
      call.end();
      await (
        await asking
      ).ended;
      const prompt = Math.ceil(JSON.stringify(body).length / 4);
      expect(await billed.logged()).toMatchObject({ estimated: true, input_tokens: prompt, output_tokens: 2 });
      expect(await billed.used()).toEqual(priced(prompt, 2));
    },
  );

  it.each([{ input_tokens: 0, output_tokens: 0 }, undefined])(
    "that is said to use nothing is free after %j",
    async (usage) => {
      const billed = await startBilledProxy();
      const asking = billed.ask(path, body);
      const call = await billed.upstream.next();
      const start = messageEvent("message_start", { message: { usage } });
      const end = messageDelta({ input_tokens: 0, output_tokens: 0 });
      await call.send([start, ...messageText, end, messageStop].join(""));
      call.end();
      await (
        await asking
      ).ended;
      expect(await billed.logged()).toMatchObject({ estimated: false, input_tokens: 0, output_tokens: 0 });
      expect(await billed.used()).toEqual(priced(0, 0));
    },
  );

  it("without usage in the end is billed by the prompt as reported and an estimate of the rest", async () => {
    const billed = await startBilledProxy();
    const asking = billed.ask(path, body);
    const call = await billed.upstream.next();
    await call.send([messageStart, ...messageText, messageDelta(null), messageStop].join(""));
    call.end();
    await (
      await asking
    ).ended;
    const line = await billed.logged();
    expect(line).toMatchObject({ estimated: true, input_tokens: input, output_tokens: 2 });
    expect(await billed.used()).toEqual(priced(input, 2, { cached }));
  });

  it("whose client leaves is followed to its usage", async () => {
    const { call, client, used, logged, away } = await reading();
    await away(() => {
      client.leave();
    });
    await call.send([...messageText, messageDelta(), messageStop].join(""));
    expect(await logged()).toMatchObject({ outcome: "client_gone", requests: weight, estimated: false });
    expect(await used()).toEqual(exact);
  });

  it("is cut where the budget runs out", async () => {
    const billed = await startBilledProxy({ maxTokens: 400 });
    const asking = billed.ask(path, streamed);
    const call = await billed.upstream.next();
    await call.send(messageStart);
    void call.send(textDelta("word").repeat(1000)).catch(() => undefined);
    const client = await asking;
    const last = (await client.rest()).at(-1);
    expect(last?.json).toMatchObject({
      type: "error",
      error: { code: "quota_exceeded_midstream", type: "billing_error" },
    });
    await call.closed;
    expect((await billed.used())[1]).toBeLessThanOrEqual(400);
  });
});

describe("a message that is refused", () => {
  it.each<[string, number, string, object]>([
    ["without a model", 400, "invalid_request_error", { ...body, model: undefined }],
    ["without messages", 400, "invalid_request_error", { ...body, messages: [] }],
    ["with max_tokens of zero", 400, "invalid_request_error", { ...body, max_tokens: 0 }],
  ])("%s has Anthropic's shape: %i", async (_, status, type, wrong) => {
    const billed = await startBilledProxy();
    const client = await billed.ask(path, wrong);
    await client.ended;
    expect(client.status).toBe(status);
    const trace = client.headers["x-request-id"];
    expect(JSON.parse(client.text)).toMatchObject({
      type: "error",
      error: { type, message: expect.any(String), trace_id: trace },
      request_id: trace,
    });
    expect(billed.upstream.received).toBe(0);
  });

  it("because its provider has no such API is a 404", async () => {
    const billed = await startBilledProxy({ kind: "openai" });
    const client = await billed.ask(path, body);
    await client.ended;
    expect(client.status).toBe(404);
    expect(JSON.parse(client.text)).toMatchObject({ error: { type: "not_found_error", code: "model_not_found" } });
    expect(await billed.used()).toEqual(nothing);
  });

  it.each([
    [401, { type: "error", error: { type: "authentication_error", message: `bad key ${upstreamKey}` } }, 503],
    [429, { type: "error", error: { type: "rate_limit_error", message: "slow down" } }, 429],
    [529, { type: "error", error: { type: "overloaded_error", message: "Overloaded" } }, 503],
    [400, { type: "error", error: { type: "invalid_request_error", message: "max_tokens: required" } }, 400],
  ])("by its provider with %i costs nothing and shows no key", async (status, answer, shown) => {
    const billed = await startBilledProxy();
    const asking = billed.ask(path, streamed);
    (await billed.upstream.next()).respond(status, answer);
    const client = await asking;
    await client.ended;
    expect(client.status).toBe(shown);
    expect(JSON.parse(client.text)).toMatchObject({ type: "error", error: { type: expect.any(String) } });
    expect(client.text + billed.proxy.logLines.join("")).not.toContain(upstreamKey);
    expect(await billed.used()).toEqual(nothing);
  });
});

describe("the messages of Zhipu", () => {
  it.each(["/api/paas/v4", "/api/coding/paas/v4"])("are beside its own API at %s", async (base) => {
    const billed = await startBilledProxy({ kind: "zhipu", through: (url) => Promise.resolve(url + base) });
    const asking = billed.ask(path, body);
    const call = await billed.upstream.next();
    expect(call.url).toBe("/api/anthropic/v1/messages");
    await answerMessage(call);
    expect((await asking).status).toBe(200);
  });
});
