import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MessageCollector } from "../../src/gateway/formats/messages.ts";
import { createSimulator, type Simulator } from "../../src/simulator/server.ts";
import { openStream } from "../support/sse-client.ts";

let simulator: Simulator;

beforeAll(async () => {
  simulator = await createSimulator({ firstTokenMs: 0, tokensPerSecond: 0, apiKey: "key" });
});

afterAll(() => simulator.close());

async function ask(path: string, body: object, headers: Record<string, string> = { authorization: "Bearer key" }) {
  const client = await openStream(`${simulator.url}${path}`, { headers, body });
  await client.ended;
  return client;
}

const weather = { role: "user", content: "How is the weather?" };
const tool = { name: "get_weather", input_schema: { type: "object", properties: { city: { type: "string" } } } };
const message = { model: "deepseek-flash", max_tokens: 500, messages: [weather], tools: [tool] };

describe("the simulator's messages", () => {
  it("say the same streamed and collected: thinking, then a tool's input, then why they end", async () => {
    const streamed = await ask("/anthropic/v1/messages", { ...message, stream: true });
    const collector = new MessageCollector();
    const events = await streamed.rest();
    for (const { json } of events) collector.add(json);
    const whole = JSON.parse((await ask("/anthropic/v1/messages", message)).text);
    expect(JSON.parse(collector.body())).toEqual({ ...whole, id: expect.stringMatching(/^msg_/) });
    expect(whole).toMatchObject({
      content: [{ type: "thinking" }, { type: "tool_use", name: "get_weather", input: { city: "Hangzhou" } }],
      stop_reason: "tool_use",
    });
    expect([...new Set(events.map(({ event }) => event))]).toEqual([
      "message_start",
      "ping",
      "content_block_start",
      "content_block_delta",
      "content_block_stop",
      "message_delta",
      "message_stop",
    ]);
    for (const { event, json } of events) expect(json).toMatchObject({ type: event });
  });

  it("take the key as Anthropic's clients send it, and refuse in Anthropic's shape", async () => {
    expect((await ask("/anthropic/v1/messages", message, { "x-api-key": "key" })).status).toBe(200);
    const refused = await ask("/anthropic/v1/messages", message, { "x-api-key": "wrong" });
    expect(refused.status).toBe(401);
    expect(JSON.parse(refused.text)).toMatchObject({ type: "error", error: { type: "authentication_error" } });
    const limited = await ask("/anthropic/v1/messages", { ...message, model: "sim-429" });
    expect(JSON.parse(limited.text)).toMatchObject({ type: "error", error: { type: "rate_limit_reached_error" } });
  });

  it("cut a tool's input where max_tokens ends it", async () => {
    const short = { ...message, thinking: { type: "disabled" }, max_tokens: 1 };
    const { text, status } = await ask("/anthropic/v1/messages", short);
    expect(status).toBe(200);
    expect(JSON.parse(text)).toMatchObject({ content: [{ input: {} }], stop_reason: "max_tokens" });
  });
});

describe("the simulator's beta root", () => {
  const prefix = { model: "sim-fast", messages: [weather, { role: "assistant", content: "It", prefix: true }] };
  const fim = { model: "sim-fast", prompt: "a", suffix: "b" };

  it.each([
    ["/chat/completions", prefix],
    ["/completions", fim],
    ["/v1/completions", fim],
  ])("alone takes what is sent to %s here", async (path, body) => {
    const refused = await ask(path, body);
    expect(refused.status).toBe(400);
    expect(refused.text).toContain("only available when using beta api");
    expect((await ask(`/beta${path.replace("/v1", "")}`, body)).status).toBe(200);
  });
});

describe("the simulator's embeddings", () => {
  it("depend on nothing but the text, as numbers and in base64", async () => {
    const body = { model: "sim-fast", input: ["a", "b"], dimensions: 5 };
    const [plain, base64] = await Promise.all([
      ask("/v1/embeddings", body),
      ask("/v1/embeddings", { ...body, encoding_format: "base64" }),
    ]);
    const vectors = vectorsOf(plain.text) as readonly number[][];
    const decoded = (vectorsOf(base64.text) as readonly string[]).map((text) => {
      const bytes = Buffer.from(text, "base64");
      return Array.from({ length: 5 }, (_, at) => bytes.readFloatLE(4 * at));
    });
    expect(vectors[0]).not.toEqual(vectors[1]);
    expect(decoded).toEqual(vectors.map((vector) => vector.map(Math.fround)));
    expect(JSON.parse(plain.text).usage).toEqual({ prompt_tokens: 2, total_tokens: 2 });
  });

  it("fail as the model's name says", async () => {
    expect((await ask("/embeddings", { model: "sim-503", input: "a" })).status).toBe(503);
    expect((await ask("/embeddings", { model: "sim-fast" })).status).toBe(422);
  });
});

function vectorsOf(text: string): readonly unknown[] {
  const { data } = JSON.parse(text) as { data: readonly { embedding: unknown }[] };
  return data.map(({ embedding }) => embedding);
}
