import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createSimulator, type Simulator } from "../../src/simulator/server.ts";
import { openStream } from "../support/sse-client.ts";

let simulator: Simulator;
let client: OpenAI;

const hello = [{ role: "user" as const, content: "Hello there" }];

beforeAll(async () => {
  simulator = await createSimulator({ firstTokenMs: 0, tokensPerSecond: 0, keepAliveMs: 10 });
  client = new OpenAI({ apiKey: "key", baseURL: `${simulator.url}/v1`, maxRetries: 0 });
});

afterAll(() => simulator.close());

function chat(body: object, url = simulator.url) {
  return openStream(`${url}/chat/completions`, {
    headers: { authorization: "Bearer key" },
    body: { stream: true, messages: hello, ...body },
  });
}

describe("the openai SDK against the simulator", () => {
  test("lists the models", async () => {
    const ids = (await client.models.list()).data.map((model) => model.id);
    expect(ids.slice(0, 2)).toEqual(["deepseek-flash", "deepseek-v4-pro"]);
    expect(ids).toContain("sim-429");
  });

  test("streams an answer whose usage counts its chunks", async () => {
    const stream = await client.chat.completions.create({ model: "deepseek-flash", messages: hello, stream: true });
    let text = "";
    let chunks = 0;
    let usage: OpenAI.CompletionUsage | null | undefined;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      chunks++;
      usage = chunk.usage;
    }
    expect(text).toContain("simulator");
    expect(text).toContain("Hello there");
    // All but the chunk with the role and the one with the finish reason are tokens.
    expect(usage?.completion_tokens).toBe(chunks - 2);
    expect(usage?.completion_tokens_details?.reasoning_tokens).toBeGreaterThan(0);
  });

  test("collects the same text without streaming", async () => {
    const collected = await client.chat.completions.create({ model: "sim-fast", messages: hello });
    const runner = client.chat.completions.stream({ model: "sim-fast", messages: hello });
    expect(collected.choices[0]?.message.content).toBe((await runner.finalMessage()).content);
    expect(collected.usage?.completion_tokens).toBe(10);
  });

  test("reads tool calls from fragments, with arguments made from the schema", async () => {
    const parameters = {
      type: "object",
      properties: { city: { type: "string" }, days: { type: "integer" }, unit: { type: "string", enum: ["C", "F"] } },
    };
    const runner = client.chat.completions.stream({
      model: "deepseek-v4-pro",
      messages: [{ role: "user", content: "What is the weather like?" }],
      tools: [{ type: "function", function: { name: "forecast", parameters } }],
    });
    const { choices } = await runner.finalChatCompletion();
    expect(choices[0]?.finish_reason).toBe("tool_calls");
    const [call] = choices[0]?.message.tool_calls ?? [];
    expect(call).toMatchObject({ type: "function", function: { name: "forecast" } });
    expect(call?.type === "function" && JSON.parse(call.function.arguments)).toEqual({
      city: "Hangzhou",
      days: 1,
      unit: "C",
    });
  });

  test.each([
    ["sim-400", OpenAI.BadRequestError, /Invalid Format/],
    ["sim-401", OpenAI.AuthenticationError, /governor/],
    ["sim-402", OpenAI.APIError, /Insufficient Balance/],
    ["sim-422", OpenAI.UnprocessableEntityError, /Invalid Parameters/],
    ["sim-429", OpenAI.RateLimitError, /concurrency limit/],
    ["sim-500", OpenAI.InternalServerError, /Internal Server Error/],
    ["sim-503", OpenAI.InternalServerError, /too busy/],
    ["sim-html", OpenAI.InternalServerError, /502/],
    ["sim-reset", OpenAI.APIConnectionError, /Connection/],
    ["no-such-model", OpenAI.BadRequestError, /Model Not Exist/],
  ])("%s raises the SDK's own error", async (model, type, message) => {
    const error: unknown = await client.chat.completions
      .create({ model, messages: hello, stream: true })
      .catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(type);
    expect(String(error)).toMatch(message);
  });

  test("an error event in mid-stream raises an APIError", async () => {
    const stream = await client.chat.completions.create({ model: "sim-error-event", messages: hello, stream: true });
    const reading = (async () => {
      let count = 0;
      for await (const chunk of stream) count += chunk.choices.length;
      return count;
    })();
    await expect(reading).rejects.toThrow(OpenAI.APIError);
  });
});

describe("DeepSeek's wire", () => {
  test("sends role, reasoning, content, finish with usage, and [DONE], in that order", async () => {
    const stream = await chat({ model: "deepseek-v4-pro" });
    expect(stream.headers["content-type"]).toBe("text/event-stream; charset=utf-8");
    expect(stream.headers["x-request-id"]).toMatch(/^[\w-]+$/);
    expect(stream.headers["transfer-encoding"]).toBe("chunked");
    const events = await stream.rest();
    expect(events.at(-1)?.data).toBe("[DONE]");
    const chunks = events.slice(0, -1).flatMap((event) => event.json ?? []);
    expect(chunks[0]?.choices[0].delta).toEqual({ role: "assistant", content: null, reasoning_content: "" });
    const kinds = chunks.slice(1, -1).map((chunk) => (chunk.choices[0].delta.content === null ? "r" : "c"));
    expect(kinds.join("")).toMatch(/^r+c+$/);
    const last = chunks.at(-1);
    expect(last?.choices[0].finish_reason).toBe("stop");
    expect(last?.usage).toMatchObject({ prompt_tokens: 3, prompt_cache_hit_tokens: 0, prompt_cache_miss_tokens: 3 });
    expect(chunks.slice(0, -1).every((chunk) => chunk.usage === null)).toBe(true);
  });

  test("a missing key gets a plain-text 401, a wrong one a JSON 401", async () => {
    const bare = await openStream(`${simulator.url}/chat/completions`, { body: {} });
    await bare.ended;
    expect([bare.status, bare.text]).toEqual([401, "Authentication Fails (governor)"]);

    const strict = await createSimulator({ apiKey: "right" });
    const wrong = await chat({ model: "sim-fast" }, strict.url);
    await wrong.ended;
    expect(wrong.status).toBe(401);
    expect(JSON.parse(wrong.text).error.type).toBe("authentication_error");
    await strict.close();
  });

  test("the balance is made of strings", async () => {
    const answer = await openStream(`${simulator.url}/user/balance`, { headers: { authorization: "Bearer key" } });
    await answer.ended;
    expect(JSON.parse(answer.text).balance_infos[0]).toMatchObject({ currency: "CNY", total_balance: "110.00" });
  });

  test("max_tokens cuts the answer and says length; stop cuts it and says stop", async () => {
    const cut = await (await chat({ model: "sim-usage-after", max_tokens: 3 })).rest();
    expect(cut.at(-2)?.json?.choices[0].finish_reason).toBe("length");
    const stopped = await (await chat({ model: "deepseek-flash", stop: "simulator" })).rest();
    const text = stopped.map((event) => event.json?.choices[0].delta.content ?? "").join("");
    expect(text).toBe("Hello! I am the proxy's built-in ");
  });

  test("a Chinese prompt gets a Chinese answer, and thinking can be switched off", async () => {
    const messages = [{ role: "user", content: "你好" }];
    const events = await (await chat({ model: "deepseek-flash", messages, thinking: { type: "disabled" } })).rest();
    expect(events.map((event) => event.json?.choices[0].delta.content ?? "").join("")).toContain("模拟器");
    expect(events.some((event) => event.raw.includes("reasoning_content"))).toBe(false);
  });

  test.each([
    ["not JSON", "{", 400],
    ["an array", "[]", 422],
    ["no model", JSON.stringify({ messages: hello }), 422],
    ["no messages", JSON.stringify({ model: "sim-fast" }), 422],
    ["empty messages", JSON.stringify({ model: "sim-fast", messages: [] }), 400],
    ["an absurd max_tokens", JSON.stringify({ model: "sim-fast", messages: hello, max_tokens: 1e12 }), 400],
    ["a max_tokens that is text", JSON.stringify({ model: "sim-fast", messages: hello, max_tokens: "NaN" }), 422],
  ])("refuses %s", async (_, body, status) => {
    const answer = await openStream(`${simulator.url}/chat/completions`, {
      headers: { authorization: "Bearer key" },
      body,
    });
    await answer.ended;
    expect(answer.status).toBe(status);
    expect(JSON.parse(answer.text).error.message).not.toBe("");
  });

  test("outlives nesting that not every version of Node can write back", async () => {
    const body = `{"model":"sim-fast","messages":[${"[".repeat(5e4)}${"]".repeat(5e4)}]}`;
    const answer = await openStream(`${simulator.url}/chat/completions`, {
      headers: { authorization: "Bearer key" },
      body,
    });
    await answer.ended;
    expect([200, 500]).toContain(answer.status);
    expect((await chat({ model: "sim-fast" })).status).toBe(200);
  });
});

describe("pace and leaving", () => {
  test("paced tokens arrive one by one, each before the next is due", async () => {
    const stream = await chat({ model: "sim-paced:50", max_tokens: 3 });
    await stream.nextEvent();
    expect(stream.text.match(/data:/g)).toHaveLength(1);
    expect(await stream.rest()).toHaveLength(5);
  });

  test("keep-alive comments come while it queues, then the answer", async () => {
    const peak = await createSimulator({ queueMs: 60, firstTokenMs: 0, tokensPerSecond: 0, keepAliveMs: 10 });
    const events = await (await chat({ model: "deepseek-flash" }, peak.url)).rest();
    const firstData = events.findIndex((event) => event.data !== undefined);
    expect(firstData).toBeGreaterThan(1);
    expect(events.slice(0, firstData).every((event) => event.comment === "keep-alive")).toBe(true);
    expect(events.slice(firstData).every((event) => event.comment === undefined)).toBe(true);

    const collected = await chat({ model: "deepseek-flash", stream: false }, peak.url);
    await collected.ended;
    expect(collected.text).toMatch(/^\n+\{/);
    await peak.close();
  });

  test("a client that leaves stops the generation and is counted", async () => {
    const before = simulator.stats();
    const stream = await chat({ model: "sim-paced:1" });
    await stream.nextEvent();
    expect(simulator.stats().open).toBe(before.open + 1);
    stream.leave();
    await expect.poll(() => simulator.stats().open).toBe(before.open);
    expect(simulator.stats().aborted).toBe(before.aborted + 1);
  });

  test("a reader that stops holds the answer back and then gets all of it", async () => {
    const before = simulator.stats();
    const stream = await chat({ model: "sim-long:50000" });
    stream.pause();
    await (await chat({ model: "sim-burst" })).rest();
    expect(simulator.stats().completed).toBe(before.completed + 1);
    expect(simulator.stats().open).toBe(before.open + 1);
    stream.resume();
    expect(await stream.rest()).toHaveLength(50_003);
  });

  test("close cuts open streams", async () => {
    const other = await createSimulator();
    const stream = await chat({ model: "sim-stall-first" }, other.url);
    await stream.nextEvent();
    await other.close();
    expect(await stream.ended).toBe("aborted");
  });
});
