import { describe, expect, it } from "vitest";
import { nothing, priced, startBilledProxy } from "../support/billed-proxy.ts";

/*
 * Some models can't be streamed, or not with every parameter (OpenAI's for organisations that are not verified, or with
 * audio): what is asked for as one JSON is served all the same.
 */
const messages = [{ role: "user", content: "hi" }];
const prompt = { model: "flash", max_tokens: 10 };
const usage = { prompt_tokens: 20, completion_tokens: 3, total_tokens: 23 };
const top = { id: "c", created: 1, model: "flash" };
const apis = [
  {
    kind: "openai" as const,
    path: "/v1/chat/completions",
    body: { ...prompt, messages },
    whole: {
      ...top,
      object: "chat.completion",
      usage,
      choices: [{ index: 0, message: { role: "assistant", content: "Hello" }, logprobs: null, finish_reason: "stop" }],
    },
    last: "[DONE]",
  },
  {
    kind: "openai" as const,
    path: "/v1/completions",
    body: { ...prompt, prompt: "hi" },
    whole: {
      ...top,
      object: "text_completion",
      usage,
      choices: [{ index: 0, text: "Hello", logprobs: null, finish_reason: "stop" }],
    },
    last: "[DONE]",
  },
  {
    kind: "openai" as const,
    path: "/v1/responses",
    body: { model: "flash", max_output_tokens: 10, input: "hi", store: false },
    whole: {
      id: "r",
      object: "response",
      created_at: 1,
      model: "flash",
      status: "completed",
      output: [{ type: "message", id: "m", role: "assistant", content: [{ type: "output_text", text: "Hello" }] }],
      usage: { input_tokens: 20, output_tokens: 3, total_tokens: 23 },
    },
    last: "response.completed",
  },
  {
    kind: "deepseek" as const,
    path: "/anthropic/v1/messages",
    body: { ...prompt, messages },
    whole: {
      id: "m",
      type: "message",
      role: "assistant",
      model: "flash",
      stop_reason: "end_turn",
      stop_sequence: null,
      content: [{ type: "text", text: "Hello" }],
      usage: { input_tokens: 20, output_tokens: 3 },
    },
    last: "message_stop",
  },
];

/** As OpenAI refuses one. */
const refusals: readonly (readonly [string, number, object])[] = [
  ["by the field", 400, { message: "Unsupported value.", param: "stream", code: "unsupported_value" }],
  ["by words", 400, { message: "Your organization must be verified to stream this model.", param: null }],
  ["of a parameter", 422, { message: "audio.format does not support 'wav' when stream=true.", param: "audio.format" }],
];

describe.each(apis)("A6: a refusal to stream, on $path,", ({ kind, path, body, whole, last }) => {
  it.each(refusals)(
    "%s, leads to one JSON, as it came or as events, and counts for nobody",
    async (_, status, error) => {
      const { ask, upstream, used, proxy } = await startBilledProxy({ kind });
      for (const stream of [true, false]) {
        const asking = ask(path, { ...body, stream });
        const first = await upstream.next();
        expect(first.body).toMatchObject({ stream: true });
        first.respond(status, { error });
        const second = await upstream.next();
        expect(second.body).toEqual(stream ? { ...body, stream: false } : { ...body, stream });
        second.respond(200, whole);
        const client = await asking;
        const events = await client.rest();
        await client.ended;
        expect(client.status).toBe(200);
        expect(client.text).toContain("Hello");
        if (stream) expect(events.at(-1)?.event ?? events.at(-1)?.data).toBe(last);
        else expect(JSON.parse(client.text)).toEqual(whole);
      }
      expect(await used()).toEqual(priced(20, 3).map((amount) => 2 * amount));
      expect(proxy.services.providerAdmin.list()[0]).toMatchObject({ errorRate: 0 });
    },
  );

  it("is asked once more only, and reaches the client with its words", async () => {
    const { ask, upstream, used } = await startBilledProxy({ kind, attempts: 3 });
    const asking = ask(path, { ...body, stream: true });
    for (let round = 0; round < 2; round++)
      (await upstream.next()).respond(400, { error: { message: "Streaming is not supported.", param: "stream" } });
    const client = await asking;
    await client.ended;
    expect(client.status).toBe(400);
    expect(client.text).toContain("Streaming is not supported.");
    expect(upstream.received).toBe(2);
    expect(await used()).toEqual(nothing);
  });
});

it.each([
  [400, { message: "The upstream does not support this." }],
  [400, { message: `${"x".repeat(400)} stream is not supported` }],
  [400, { message: "no", detail: "stream is not supported" }],
  [503, { message: "Streaming is not available now.", param: "stream" }],
])("A6: no other error is taken for one: %i %j", async (status, error) => {
  const { ask, upstream } = await startBilledProxy({ kind: "openai" });
  const asking = ask("/v1/chat/completions", { ...prompt, messages, stream: true });
  (await upstream.next()).respond(status, { error });
  expect((await asking).status).toBe(status);
  expect(upstream.received).toBe(1);
});
