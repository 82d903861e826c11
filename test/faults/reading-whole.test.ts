import { describe, expect, it } from "vitest";
import { unfoldChoices, unfoldMessage } from "../../src/providers/stream/unfold.ts";
import { nothing, priced, startBilledProxy } from "../support/billed-proxy.ts";

const call = { id: "call_1", type: "function", function: { name: "f", arguments: '{"a":1}' } };
const said = { role: "assistant", content: "Hello", reasoning_content: "Greet.", tool_calls: [call] };
const reported = { prompt_tokens: 20, completion_tokens: 30, total_tokens: 50 };
const chat = {
  id: "c",
  object: "chat.completion",
  created: 1,
  model: "flash",
  system_fingerprint: "fp",
  unknown: { kept: true },
  choices: [{ index: 0, message: said, logprobs: null, finish_reason: "tool_calls", stop_reason: null }],
  usage: reported,
};
const text = {
  id: "t",
  object: "text_completion",
  created: 1,
  model: "flash",
  choices: [{ index: 0, text: "Hello", logprobs: null, finish_reason: "stop" }],
  usage: reported,
};
const message = {
  id: "m",
  type: "message",
  role: "assistant",
  model: "flash",
  content: [
    { type: "thinking", thinking: "Greet.", signature: "c2ln" },
    { type: "text", text: "Hello" },
    { type: "tool_use", id: "toolu_1", name: "f", input: { a: 1 } },
    { type: "redacted_thinking", data: "abc" },
  ],
  stop_reason: "tool_use",
  stop_sequence: null,
  usage: { input_tokens: 20, output_tokens: 30 },
};

const prompt = { model: "flash", max_tokens: 10 };
const messages = [{ role: "user", content: "hi" }];
const apis = [
  { path: "/v1/chat/completions", body: { ...prompt, messages }, whole: chat, texts: ["Hello", "Greet."] },
  { path: "/v1/completions", body: { ...prompt, prompt: "hi" }, whole: text, texts: ["Hello"] },
  { path: "/anthropic/v1/messages", body: { ...prompt, messages }, whole: message, texts: ["Hello", "Greet."] },
] as const;

describe.each(apis)("A6: one JSON where a stream was asked for, on $path,", ({ path, body, whole, texts }) => {
  const isMessage = whole === message;
  const json = JSON.stringify(whole, null, 1);

  it("is passed on as it came for one JSON, even where its events could not be merged", async () => {
    const { ask, upstream } = await startBilledProxy();
    const deep = json.replace("{", `{"x":${"[".repeat(100)}${"]".repeat(100)},`);
    const asked = ask(path, { ...body, stream: false });
    (await upstream.next()).respond(200, deep, { "content-type": "application/json" });
    const client = await asked;
    await client.ended;
    expect(client.status).toBe(200);
    expect(client.text).toBe(deep);
  });

  it("is the answer: as it came for one JSON, events for a stream; asked for once, billed by its usage", async () => {
    const { ask, upstream, used } = await startBilledProxy({ attempts: 3 });

    const asked = ask(path, { ...body, stream: false });
    const forJson = await upstream.next();
    expect(forJson.body.stream).toBe(true);
    forJson.respond(200, json, { "content-type": "application/json" });
    const collected = await asked;
    await collected.ended;
    expect(collected.status).toBe(200);
    expect(collected.text).toBe(json);
    expect(await used()).toEqual(priced(20, 30));

    for (const wanted of [true, false]) {
      const streamed = ask(path, {
        ...body,
        stream: true,
        ...(wanted && !isMessage ? { stream_options: { include_usage: true } } : {}),
      });
      (await upstream.next()).respond(200, json, { "content-type": "application/json" });
      const client = await streamed;
      const events = await client.rest();
      expect(client.headers["content-type"]).toContain("text/event-stream");
      for (const said of texts) expect(events.filter(({ data }) => data?.includes(said))).toHaveLength(1);
      expect(events.at(-1)?.event ?? events.at(-1)?.data).toBe(isMessage ? "message_stop" : "[DONE]");
      expect(events.filter(({ data }) => data?.includes('"choices":[],"usage"'))).toHaveLength(
        wanted && !isMessage ? 1 : 0,
      );
    }

    // In pieces, behind blank lines, and without the end of the body.
    const streamed = ask(path, { ...body, stream: true });
    const slow = await upstream.next();
    slow.head(200, { "content-type": "application/json" });
    for (const piece of ["\n", "\r\n\n", json.slice(0, 1), json.slice(1, 60), json.slice(60), "\n"]) {
      await slow.send(piece);
    }
    expect((await (await streamed).rest()).length).toBeGreaterThan(2);
    expect(upstream.received).toBe(4);
    expect(await used()).toEqual(priced(20, 30).map((each) => 4 * each));
  });
});

describe("A6: one JSON of no use", () => {
  const cut = (reason: unknown): object => ({ ...chat, choices: [{ index: 0, message: said, finish_reason: reason }] });
  const rows: readonly (readonly [string, object])[] = [
    ["upstream_truncated", { ...chat, choices: [] }],
    ["upstream_invalid_response", { ok: true }],
    ["upstream_truncated", cut(null)],
    ["upstream_truncated", cut("")],
    ["upstream_overloaded", cut("insufficient_system_resource")],
    ["upstream_error", { error: { message: "gone", code: 500 } }],
    ["context_length_exceeded", { error: { message: "too long", code: "context_length_exceeded" } }],
  ];

  it("is an error, unbilled", async () => {
    const { ask, upstream, used } = await startBilledProxy({ config: "[breaker]\nfailures = 100\n" });
    for (const [code, body] of rows) {
      for (const stream of [true, false]) {
        const asking = ask("/v1/chat/completions", { model: "flash", messages, stream });
        (await upstream.next()).respond(200, body);
        const client = await asking;
        await client.ended;
        expect(client.status).toBeGreaterThanOrEqual(code.startsWith("upstream") ? 500 : 400);
        expect(JSON.parse(client.text)).toMatchObject({ error: { code } });
      }
    }
    expect(await used()).toEqual(nothing);
  });
});

describe("A6: what came whole is unfolded", () => {
  it("into chunks: all of a choice, then its finish_reason, then the usage", () => {
    const two = { ...chat, choices: [chat.choices[0], { message: { content: "B" }, finish_reason: "length" }] };
    const events = [...unfoldChoices(two)];
    expect(events.map(({ role }) => role)).toEqual(["part", "finish", "part", "finish", "usage"]);
    expect(events.map(({ parsed }) => parsed)).toMatchObject([
      {
        object: "chat.completion.chunk",
        unknown: { kept: true },
        choices: [{ index: 0, delta: { ...said, tool_calls: [{ index: 0, ...call }] }, finish_reason: null }],
      },
      { choices: [{ index: 0, delta: {}, finish_reason: "tool_calls" }] },
      { choices: [{ index: 1, delta: { content: "B" }, finish_reason: null }] },
      { choices: [{ index: 1, delta: {}, finish_reason: "length" }] },
      { choices: [], usage: reported },
    ]);
  });

  it("into Anthropic's events, with each block's text in deltas", () => {
    const events = [...unfoldMessage(message)];
    expect(events.map(({ name }) => name)).toEqual([
      "message_start",
      "content_block_start",
      "content_block_delta",
      "content_block_delta",
      "content_block_stop",
      "content_block_start",
      "content_block_delta",
      "content_block_stop",
      "content_block_start",
      "content_block_delta",
      "content_block_stop",
      "content_block_start",
      "content_block_stop",
      "message_delta",
    ]);
    const deltas = events.flatMap(({ parsed }) => (parsed.type === "content_block_delta" ? [parsed.delta] : []));
    expect(deltas).toEqual([
      { type: "thinking_delta", thinking: "Greet." },
      { type: "signature_delta", signature: "c2ln" },
      { type: "text_delta", text: "Hello" },
      { type: "input_json_delta", partial_json: '{"a":1}' },
    ]);
    expect(events.at(-1)?.parsed).toMatchObject({ delta: { stop_reason: "tool_use" }, usage: { output_tokens: 30 } });
  });

  it("is nothing where it is something else", () => {
    expect([...unfoldChoices({ object: "list", data: [] })]).toEqual([]);
    expect([...unfoldMessage({ content: "text" })]).toEqual([]);
  });
});
