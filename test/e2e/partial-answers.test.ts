import { describe, expect, it } from "vitest";
import { nothing, startBilledProxy, type BilledOptions } from "../support/billed-proxy.ts";
import { messageEvent, messageStart, textDelta } from "../support/message-events.ts";

const partial = { "x-partial": "true" };
const chat = { model: "flash", stream: false, max_tokens: 10, messages: [{ role: "user", content: "hi" }] };
const delta = (fields: object) => ({
  id: "c1",
  object: "chat.completion.chunk",
  created: 1,
  model: "flash",
  choices: [{ index: 0, delta: fields, logprobs: null, finish_reason: null }],
  usage: null,
});
const call = (index: number, fields: object) => ({ tool_calls: [{ index, ...fields }] });

async function ask(headers: Record<string, string>, options: BilledOptions = {}, body: object = chat) {
  const billed = await startBilledProxy(options);
  const asking = billed.ask("/v1/chat/completions", body, headers);
  return { ...billed, asking, provider: await billed.upstream.next() };
}

describe("a collected answer that breaks off", () => {
  it("comes with what had arrived, where it was asked for", async () => {
    const { asking, provider, used } = await ask(partial);
    await provider.event(delta({ role: "assistant", content: null, reasoning_content: "Let me " }));
    await provider.event(delta({ content: null, reasoning_content: "see." }));
    await provider.event(delta({ content: "It is " }));
    await provider.event(
      delta(call(0, { id: "call_1", type: "function", function: { name: "f", arguments: '{"a":' } })),
    );
    await provider.event(delta(call(0, { function: { arguments: "1" } })));
    provider.end();
    const client = await asking;
    await client.ended;
    expect(client.status).toBe(502);
    expect(JSON.parse(client.text).error).toMatchObject({
      code: "upstream_truncated",
      details: {
        partial: {
          id: "c1",
          object: "chat.completion",
          choices: [
            {
              index: 0,
              message: {
                role: "assistant",
                content: "It is ",
                reasoning_content: "Let me see.",
                tool_calls: [{ id: "call_1", type: "function", function: { name: "f", arguments: '{"a":1' } }],
              },
              finish_reason: null,
            },
          ],
        },
      },
    });
    expect(await used()).toEqual(nothing);
  });

  it("says nothing of it unless asked, nor where nothing had arrived", async () => {
    for (const headers of [{}, { "x-partial": "no" }]) {
      const { asking, provider } = await ask(headers);
      await provider.delta("secret half");
      provider.end();
      const client = await asking;
      await client.ended;
      expect(client.status).toBe(502);
      expect(JSON.parse(client.text).error.details).toBeUndefined();
    }
    const { asking, provider } = await ask(partial);
    provider.end();
    const client = await asking;
    await client.ended;
    expect(JSON.parse(client.text).error.details).toBeUndefined();
  });

  it("has no finish_reason, even where the provider gave one for giving up", async () => {
    const { asking, provider } = await ask(partial);
    await provider.delta("half");
    await provider.finish(null, "insufficient_system_resource");
    const client = await asking;
    await client.ended;
    const { error } = JSON.parse(client.text);
    expect(error.code).toBe("upstream_overloaded");
    expect(error.details.partial.choices).toMatchObject([{ message: { content: "half" }, finish_reason: null }]);
  });

  it("is shown as far as the budget went, with the limit's details", async () => {
    const { asking, provider } = await ask(partial, { maxTokens: 400 });
    void provider.send(`data: ${JSON.stringify(delta({ content: "a" }))}\n\n`.repeat(1000)).catch(() => undefined);
    const client = await asking;
    await client.ended;
    const { error } = JSON.parse(client.text);
    expect(client.status).toBe(402);
    expect(error.details).toMatchObject({ metric: "tokens", per: "total" });
    expect(error.details.partial.choices[0].message.content).toMatch(/^a{200,400}$/);
  });

  it("is not shown where it is larger than an error may be", async () => {
    const { asking, provider } = await ask(partial, {}, { ...chat, max_tokens: 10_000_000 });
    await provider.delta("x".repeat(5 << 20));
    provider.end();
    const client = await asking;
    await client.ended;
    expect(client.text.length).toBeLessThan(1000);
    expect(JSON.parse(client.text).error.details).toEqual({ partial: null });
  });

  it("comes in the shape of its API", async () => {
    const billed = await startBilledProxy();
    const asking = billed.ask("/anthropic/v1/messages", { ...chat }, partial);
    const provider = await billed.upstream.next();
    const tool = { type: "tool_use", id: "t1", name: "f", input: {} };
    await provider.send(
      [
        messageStart,
        messageEvent("content_block_start", { index: 0, content_block: { type: "text", text: "" } }),
        textDelta("Let me see."),
        messageEvent("content_block_start", { index: 1, content_block: tool }),
        messageEvent("content_block_delta", { index: 1, delta: { type: "input_json_delta", partial_json: '{"a":' } }),
      ].join(""),
    );
    provider.end();
    const client = await asking;
    await client.ended;
    expect(client.status).toBe(502);
    expect(JSON.parse(client.text)).toMatchObject({
      type: "error",
      error: {
        type: "api_error",
        details: {
          partial: {
            type: "message",
            content: [
              { type: "text", text: "Let me see." },
              { ...tool, partial_json: '{"a":' },
            ],
            stop_reason: null,
          },
        },
      },
    });
  });
});
