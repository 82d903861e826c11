import { describe, expect, it, onTestFinished } from "vitest";
import { nothing, priced, startBilledProxy } from "../support/billed-proxy.ts";
import { usedRequests } from "../support/quota.ts";
import { startScriptedUpstream } from "../support/scripted-upstream.ts";
import { bearer, post, startProxy } from "../support/start-proxy.ts";

const usage = { prompt_tokens: 20, completion_tokens: 3, total_tokens: 23 };
const common = { id: "c1", created: 1, model: "flash" };
const chat = {
  ...common,
  object: "chat.completion",
  choices: [{ index: 0, message: { role: "assistant", content: "hello" }, finish_reason: "stop" }],
  usage,
};
const text = {
  ...common,
  object: "text_completion",
  choices: [{ index: 0, text: "hello", logprobs: null, finish_reason: "stop" }],
  usage,
};
const chatChunk = {
  ...common,
  object: "chat.completion.chunk",
  choices: [{ index: 0, delta: { content: "hello" }, finish_reason: "stop" }],
  usage,
};
const messageStart = { type: "message_start", message: { id: "m", role: "assistant", content: [], usage: {} } };
const responseCreated = { type: "response.created", response: { id: "r", status: "in_progress", output: [] } };

const asked = {
  chat: ["/v1/chat/completions", { model: "flash", max_tokens: 10, messages: [{ role: "user", content: "a" }] }],
  text: ["/v1/completions", { model: "flash", max_tokens: 10, prompt: "a" }],
  message: ["/anthropic/v1/messages", { model: "flash", max_tokens: 10, messages: [{ role: "user", content: "a" }] }],
  response: ["/v1/responses", { model: "flash", max_output_tokens: 10, input: "a" }],
} as const;

describe("a response of another API than the one that was asked", () => {
  it.each([
    ["a text completion", "text", chat],
    ["a chat", "chat", text],
  ] as const)("%s is refused as one JSON, and costs nothing", async (_title, api, body) => {
    const billed = await startBilledProxy();
    const [path, request] = asked[api];
    for (const stream of [true, false]) {
      const asking = billed.ask(path, { ...request, stream });
      (await billed.upstream.next()).respond(200, body);
      const client = await asking;
      await client.ended;
      expect(client.status).toBe(502);
      expect(JSON.parse(client.text)).toMatchObject({ error: { code: "upstream_invalid_response" } });
    }
    expect(await billed.used()).toEqual(nothing);
  });

  it.each([
    ["a text completion", "text", chatChunk],
    ["a text completion", "text", messageStart],
    ["a chat", "chat", text],
    ["a chat", "chat", messageStart],
    ["a chat", "chat", responseCreated],
    ["a message", "message", chatChunk],
    ["a message", "message", responseCreated],
    ["a response", "response", chatChunk],
    ["a response", "response", messageStart],
  ] as const)("%s is refused at its first event, and costs nothing", async (_title, api, event) => {
    const billed = await startBilledProxy();
    const [path, request] = asked[api];
    const asking = billed.ask(path, { ...request, stream: true });
    const call = await billed.upstream.next();
    await call.event(event);
    call.end();
    const client = await asking;
    await client.ended;
    // Clients of the Responses API take errors of a stream as its events.
    expect(client.status).toBe(api === "response" ? 200 : 502);
    expect(client.text).toContain("upstream_invalid_response");
    expect(client.text).not.toContain("hello");
    expect(await billed.used()).toEqual(nothing);
  });

  it("is refused before the client sees anything of it, though it opens without content", async () => {
    const billed = await startBilledProxy();
    const [path, request] = asked.text;
    const asking = billed.ask(path, { ...request, stream: true });
    const call = await billed.upstream.next();
    await call.event({ ...chatChunk, choices: [{ index: 0, delta: { role: "assistant", content: "" } }], usage: null });
    await call.event(chatChunk);
    call.end();
    const client = await asking;
    await client.ended;
    expect(client.status).toBe(502);
    expect(await billed.used()).toEqual(nothing);
  });

  const begun = { index: 0, finish_reason: null };
  const stops = { index: 0, finish_reason: "stop" };
  it.each<[string, keyof typeof asked, readonly object[]]>([
    [
      "ends as a chat",
      "text",
      [
        { ...begun, text: "hello" },
        { ...stops, delta: {} },
      ],
    ],
    [
      "opens as a chat",
      "text",
      [
        { ...begun, text: null, delta: { role: "assistant" } },
        { ...stops, text: "hello" },
      ],
    ],
    [
      "opens as an empty chat",
      "text",
      [
        { ...begun, delta: {} },
        { ...stops, text: "hello" },
      ],
    ],
    [
      "is a chat as well",
      "text",
      [
        { ...begun, text: "hello", delta: { content: "hello" } },
        { ...stops, delta: {} },
      ],
    ],
    ["opens with neither", "text", [begun, { ...stops, text: "hello" }]],
    [
      "ends as a text completion",
      "chat",
      [
        { ...begun, delta: { content: "hello" } },
        { ...stops, text: "" },
      ],
    ],
    [
      "opens as a text completion",
      "chat",
      [
        { ...begun, text: "", delta: null },
        { ...stops, delta: { content: "hello" } },
      ],
    ],
  ])("is not seen in one that %s", async (_title, api, choices) => {
    for (const stream of [true, false]) {
      const billed = await startBilledProxy();
      const [path, request] = asked[api];
      const asking = billed.ask(path, { ...request, stream });
      const call = await billed.upstream.next();
      for (const choice of choices) await call.event({ ...common, choices: [choice] });
      await call.event({ ...common, choices: [], usage });
      await call.done();
      call.end();
      const client = await asking;
      await client.ended;
      expect(client.status).toBe(200);
      expect(client.text).toContain("hello");
      expect(client.text).not.toContain("error");
      expect(await billed.used()).toEqual(priced(20, 3));
    }
  });

  it.each([
    [
      "a chat",
      "chat",
      [{ type: "message_stop" }, { type: "response.metadata" }],
      { ...common, choices: [{ ...begun, delta: { content: "hello" } }] },
      chatChunk,
    ],
    [
      "a message",
      "message",
      [{ choices: [], usage }, { choices: [{}] }],
      { ...messageStart, message: { ...messageStart.message, usage: { input_tokens: 20 } } },
      { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 3 } },
    ],
  ] as const)("is not seen in an event between those of %s", async (_title, api, asides, first, last) => {
    const billed = await startBilledProxy();
    const [path, request] = asked[api];
    const asking = billed.ask(path, { ...request, stream: true });
    const call = await billed.upstream.next();
    for (const event of [first, ...asides, last]) await call.event(event);
    call.end();
    const client = await asking;
    await client.ended;
    expect(client.text).not.toContain("error");
    expect(await billed.used()).toEqual(priced(20, 3));
  });

  it.each([
    [
      "a message",
      { type: "message", role: "assistant", content: [], stop_reason: "end_turn", usage: { input_tokens: 1 } },
    ],
    ["a response", { object: "response", status: "completed", output: [], usage: { input_tokens: 1 } }],
  ])("is named as such where %s comes as one JSON in place of a chat", async (_title, body) => {
    const billed = await startBilledProxy();
    const asking = billed.ask(asked.chat[0], asked.chat[1]);
    (await billed.upstream.next()).respond(200, body);
    const client = await asking;
    await client.ended;
    expect(JSON.parse(client.text)).toMatchObject({ error: { code: "upstream_invalid_response" } });
    expect(await billed.used()).toEqual(nothing);
  });

  it("costs nothing where a list of models comes in place of embeddings", async () => {
    const billed = await startBilledProxy({ kind: "openai" });
    const asking = billed.ask("/v1/embeddings", { model: "flash", input: "a" });
    (await billed.upstream.next()).respond(200, { object: "list", data: [{ id: "flash", object: "model" }] });
    const client = await asking;
    await client.ended;
    expect(client.status).toBe(502);
    expect(await billed.used()).toEqual(nothing);
  });

  it("leads to the next provider", async () => {
    const [first, second] = [await startScriptedUpstream(), await startScriptedUpstream()];
    onTestFinished(async () => {
      await Promise.all([first.close(), second.close()]);
    });
    const provider = (name: string, kind: string, url: string): string =>
      `[[providers]]\nname = "${name}"\nkind = "${kind}"\nbase_url = "${url}"\nmodels = ["*"]\npriority = ${name === "first" ? 1 : 2}\n`;
    const proxy = await startProxy({
      config: provider("first", "openai", first.url) + provider("second", "simulator", second.url),
    });
    onTestFinished(() => proxy.dispose());
    const token = await proxy.login();
    const [path, request] = asked.text;
    const asking = post(`${proxy.url}${path}`, { ...request, stream: true }, bearer(token));
    const call = await first.next();
    await call.event(chatChunk);
    call.end();
    const other = await second.next();
    expect(other.url).toBe("/beta/completions");
    await other.event(text);
    await other.done();
    other.end();
    expect(await (await asking).text()).toContain('"object":"text_completion"');
    expect(await usedRequests(proxy, token)).toBe(1);
  });
});
