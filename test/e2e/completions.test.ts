import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { nothing, priced, startBilledProxy } from "../support/billed-proxy.ts";
import { startProxy, type RunningProxy } from "../support/start-proxy.ts";
import { usedRequests } from "../support/quota.ts";

const fim = { model: "flash", prompt: "def fib(n):\n", suffix: "\n    return fib(n-1) + fib(n-2)", max_tokens: 10 };
const usage = { prompt_tokens: 20, completion_tokens: 3, total_tokens: 23, prompt_cache_hit_tokens: 4 };
const chunk = (text: string, finish_reason: string | null = null, reported: object | null = null) => ({
  id: "c1",
  object: "text_completion",
  created: 1,
  model: "flash",
  choices: [{ index: 0, text, logprobs: null, finish_reason }],
  usage: reported,
});

describe("a text completion", () => {
  it.each(["/beta/completions", "/completions", "/v1/completions"])(
    "at %s fills in the middle by DeepSeek's beta root, and is billed like a chat",
    async (path) => {
      const billed = await startBilledProxy();
      const asking = billed.ask(path, fim);
      const call = await billed.upstream.next();
      expect(call.url).toBe("/beta/completions");
      expect(call.body).toEqual({ ...fim, stream: true, stream_options: { include_usage: true } });
      await call.event(chunk("    if n < 2:"));
      await call.event(chunk("\n        return n"));
      await call.event(chunk("", "stop", usage));
      await call.done();
      call.end();
      const client = await asking;
      await client.ended;
      expect(client.headers["content-type"]).toMatch(/^application\/json/);
      expect(JSON.parse(client.text)).toEqual({
        ...chunk(""),
        choices: [{ text: "    if n < 2:\n        return n", index: 0, logprobs: null, finish_reason: "stop" }],
        usage,
      });
      expect(await billed.used()).toEqual(priced(20, 3, { cached: 4 }));
    },
  );

  it("is streamed byte for byte, and charged at its first event", async () => {
    const billed = await startBilledProxy();
    const asking = billed.ask("/beta/completions", { ...fim, stream: true });
    const call = await billed.upstream.next();
    const sent = [chunk("a"), chunk("b", "length", usage)].map((each) => `data: ${JSON.stringify(each)}\n\n`);
    await call.send(sent[0] ?? "");
    const client = await asking;
    await client.nextEvent();
    await call.send(sent[1] ?? "");
    await call.done();
    call.end();
    await client.rest();
    expect(client.text).toBe(`${sent.join("")}data: [DONE]\n\n`);
    expect(await billed.used()).toEqual(priced(20, 3, { cached: 4 }));
  });

  it("of the best of several is asked for as one JSON, which providers can't stream", async () => {
    const billed = await startBilledProxy({ kind: "openai" });
    const wanted = { model: "flash", prompt: "a", max_tokens: 5, n: 1, best_of: 3 };
    for (const stream of [{}, { stream: false }, { stream: null, stream_options: { include_usage: true } }]) {
      const asking = billed.ask("/v1/completions", { ...wanted, ...stream });
      const call = await billed.upstream.next();
      expect(call.body).toEqual({ ...wanted, ...stream, stream_options: undefined });
      call.respond(200, chunk("the best", "stop", usage));
      const client = await asking;
      await client.ended;
      expect(JSON.parse(client.text)).toEqual(chunk("the best", "stop", usage));
    }
    expect(await billed.used()).toEqual(priced(20, 3, { cached: 4 }).map((amount) => 3 * amount));
    // Nothing else can answer a client that insists.
    for (const rest of [{ stream: true }, { n: 3 }]) {
      const asking = billed.ask("/v1/completions", { ...wanted, ...rest });
      const call = await billed.upstream.next();
      expect(call.body).toMatchObject({ stream: true, stream_options: { include_usage: true } });
      call.respond(400, { error: { message: "no" } });
      expect((await asking).status).toBe(400);
    }
  });

  it("that breaks off ends with an error event, without [DONE], and costs nothing", async () => {
    const billed = await startBilledProxy();
    const asking = billed.ask("/beta/completions", { ...fim, stream: true });
    const call = await billed.upstream.next();
    await call.event(chunk("a"));
    const client = await asking;
    call.end();
    const events = await client.rest();
    expect(events.at(-1)?.json?.error).toMatchObject({ code: "upstream_truncated" });
    expect(await billed.used()).toEqual(nothing);
  });

  it("is asked for at /completions of an OpenAI-shaped provider, and of none of Zhipu's", async () => {
    const openai = await startBilledProxy({ kind: "openai" });
    const asking = openai.ask("/v1/completions", fim);
    const call = await openai.upstream.next();
    expect(call.url).toBe("/completions");
    await call.event(chunk("a", "stop", usage));
    call.end();
    expect((await asking).status).toBe(200);
    const zhipu = await startBilledProxy({ kind: "zhipu" });
    const client = await zhipu.ask("/v1/completions", fim);
    await client.ended;
    expect(client.status).toBe(404);
    expect(JSON.parse(client.text)).toMatchObject({ error: { code: "model_not_found", param: "model" } });
    expect(zhipu.upstream.received).toBe(0);
  });

  it.each([
    ["model", { prompt: "a" }],
    ["prompt", { model: "flash" }],
    ["prompt", { model: "flash", prompt: [] }],
    ["n", { model: "flash", prompt: "a", n: 0 }],
    ["stream", { model: "flash", prompt: "a", stream: "yes" }],
    ["max_tokens", { model: "flash", prompt: "a", max_tokens: 1.5 }],
  ])("is refused for a wrong %s", async (param, body) => {
    const billed = await startBilledProxy();
    const client = await billed.ask("/v1/completions", body);
    await client.ended;
    expect(client.status).toBe(400);
    expect(JSON.parse(client.text)).toMatchObject({ error: { code: "invalid_request", param } });
    expect(await billed.used()).toEqual(nothing);
  });
});

describe("a chat that goes on with its last message", () => {
  const messages = [
    { role: "user", content: "Write quick sort." },
    { role: "assistant", content: "```python\n", prefix: true },
  ];

  it.each([
    ["the API's root", "", "/beta/chat/completions"],
    ["/v1", "/v1", "/beta/chat/completions"],
    ["/beta", "/beta", "/beta/chat/completions"],
    ["a gateway's path", "/llm/v1/", "/llm/beta/chat/completions"],
  ])("is sent to DeepSeek's beta root where base_url is %s", async (_, base, path) => {
    const billed = await startBilledProxy({ through: (url) => Promise.resolve(url + base) });
    const asking = billed.ask("/v1/chat/completions", { model: "flash", messages });
    const call = await billed.upstream.next();
    expect(call.url).toBe(path);
    expect(call.body).toMatchObject({ messages });
    await call.delta("def");
    await call.finish();
    expect((await asking).status).toBe(200);
  });

  it("is sent to the usual place of other providers", async () => {
    const billed = await startBilledProxy({ kind: "openai" });
    const asking = billed.ask("/v1/chat/completions", { model: "flash", messages });
    const call = await billed.upstream.next();
    expect(call.url).toBe("/chat/completions");
    await call.finish();
    await asking;
  });

  it("and any chat at /beta/chat/completions goes there too, but no other", async () => {
    const billed = await startBilledProxy();
    const plain = { model: "flash", messages: messages.slice(0, 1) };
    for (const [from, to] of [
      ["/beta/chat/completions", "/beta/chat/completions"],
      ["/v1/chat/completions", "/chat/completions"],
    ] as const) {
      const asking = billed.ask(from, plain);
      const call = await billed.upstream.next();
      expect(call.url).toBe(to);
      await call.finish();
      await (
        await asking
      ).ended;
    }
  });
});

describe("the OpenAI SDK with its baseURL at /beta", () => {
  let proxy: RunningProxy;
  let openai: OpenAI;
  let token: string;

  beforeAll(async () => {
    proxy = await startProxy();
    token = await proxy.login();
    openai = new OpenAI({ apiKey: token, baseURL: `${proxy.url}/beta`, maxRetries: 0 });
  });

  afterAll(() => proxy.dispose());

  it("fills in the middle, collected and streamed, of the built-in simulator", async () => {
    const ask = { model: "sim-fast", prompt: "Once upon", suffix: "the end." };
    const whole = await openai.completions.create(ask);
    expect(whole).toMatchObject({ object: "text_completion", choices: [{ finish_reason: "stop" }] });
    let text = "";
    for await (const each of await openai.completions.create({ ...ask, stream: true }))
      text += each.choices[0]?.text ?? "";
    expect(text).toBe(whole.choices[0]?.text);
    expect(await usedRequests(proxy, token)).toBe(2);
  });

  it("goes on with a prefix", async () => {
    const last = { role: "assistant", content: "Well", prefix: true } as const;
    const completion = await openai.chat.completions.create({
      model: "sim-fast",
      messages: [{ role: "user", content: "hi" }, last],
    });
    expect(completion.choices[0]?.finish_reason).toBe("stop");
  });
});
