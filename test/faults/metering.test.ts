import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import type { RequestCost } from "../../src/gateway/request-cost.ts";
import { BudgetGuard } from "../../src/gateway/budget-guard.ts";
import type { Charge, Hold, QuotaLimit } from "../../src/quota/ledger.ts";
import { createReader } from "../../src/providers/stream/response-body.ts";
import { estimatedTokens } from "../../src/providers/stream/output-tokens.ts";
import type { EventRole } from "../../src/providers/stream/response-reader.ts";
import type { ApiName } from "../../src/providers/apis.ts";
import type { Provider } from "../../src/providers/provider.ts";
import { priced, startBilledProxy } from "../support/billed-proxy.ts";
import { eventually } from "../support/eventually.ts";

const provider = { secret: "", kind: { classify: () => "server_error" } } as unknown as Provider;

/** What an event is made of: what the model has written, and all the rest. */
interface Piece {
  readonly event: object;
  readonly text: string;
}

const logprobs = {
  content: [{ token: "a", logprob: -1, bytes: [97], top_logprobs: Array(20).fill({ token: "content", logprob: -9 }) }],
};

const chatChunk = (delta: object, rest: object = {}) => ({
  id: "chatcmpl-1",
  object: "chat.completion.chunk",
  choices: [{ index: 0, delta, logprobs: null, finish_reason: null, ...rest }],
  usage: null,
});

const usage = { prompt_tokens: 3, completion_tokens: 1, total_tokens: 4 };
const annotations = [
  { type: "url_citation", url_citation: { url: "http://x", title: "t", content: "long ".repeat(99) } },
];

/** Every way in which an API says text, and other things beside it. */
const pieces: Readonly<Partial<Record<ApiName, readonly ((text: string) => Piece)[]>>> = {
  chat: [
    (text) => ({ event: chatChunk({ content: text }), text }),
    (text) => ({ event: chatChunk({ content: text }, { logprobs }), text }),
    (text) => ({ event: { ...chatChunk({ content: text }), usage }, text }),
    (text) => ({ event: chatChunk({ content: text, annotations }), text }),
    (text) => ({ event: { ...chatChunk({ content: text }), obfuscation: "x".repeat(200) }, text }),
    (text) => ({ event: chatChunk({ content: null, reasoning_content: text }), text }),
    (text) => ({ event: chatChunk({ content: "", reasoning: text, reasoning_details: [{ type: "t", text }] }), text }),
    (text) => ({ event: chatChunk({ refusal: text }), text }),
    (text) => ({ event: chatChunk({ content: [{ type: "thinking", thinking: [{ type: "text", text }] }] }), text }),
    (text) => ({ event: chatChunk({ content: [{ type: "text", text }] }), text }),
    (text) => ({
      event: chatChunk({ tool_calls: [{ index: 0, id: "k".repeat(99), function: { name: "f", arguments: text } }] }),
      text,
    }),
    () => ({ event: chatChunk({ role: "assistant", content: "" }), text: "" }),
    () => ({ event: chatChunk({}), text: "" }),
    () => ({ event: { choices: [], prompt_filter_results: [{ content_filter_results: { hate: "safe" } }] }, text: "" }),
  ],
  completions: [
    (text) => ({ event: { choices: [{ index: 0, text, logprobs: null, finish_reason: null }] }, text }),
    (text) => ({
      event: { choices: [{ text, logprobs: { tokens: ["text"], text_offset: [0], top_logprobs: [{}] } }], usage },
      text,
    }),
    () => ({ event: { choices: [{ index: 0, text: "", finish_reason: null }] }, text: "" }),
  ],
  messages: [
    (text) => ({ event: { type: "content_block_delta", index: 0, delta: { type: "text_delta", text } }, text }),
    (text) => ({ event: { type: "content_block_delta", delta: { type: "thinking_delta", thinking: text } }, text }),
    (text) => ({
      event: { type: "content_block_delta", delta: { type: "input_json_delta", partial_json: text } },
      text,
    }),
    () => ({
      event: { type: "content_block_delta", delta: { type: "signature_delta", signature: "s".repeat(900) } },
      text: "",
    }),
    () => ({ event: { type: "content_block_start", content_block: { type: "text", text: "" } }, text: "" }),
    () => ({
      event: { type: "message_start", message: { id: "m", content: [], usage: { input_tokens: 5 } } },
      text: "",
    }),
  ],
};

/** Tells what a reader makes of events that the network cuts into reads of so many bytes. */
function read(api: ApiName, collects: boolean, events: readonly object[], cut: number) {
  const texts: number[] = [];
  const roles: EventRole[] = [];
  const reader = createReader(api, collects, provider, {
    onEvent(_event, _start, _end, textBytes, role) {
      texts.push(textBytes);
      roles.push(role);
    },
    onBatch: () => undefined,
    onEnd: () => undefined,
  });
  const framed = events.map((event) => Buffer.from(`data: ${JSON.stringify(event)}\n\n`));
  const bytes = Buffer.concat(framed);
  if (cut === 0) for (const event of framed) reader.push(event);
  else for (let at = 0; at < bytes.length; at += cut) reader.push(Buffer.from(bytes.subarray(at, at + cut)));
  return { texts, roles, outputTokens: reader.outputTokens };
}

const apis = ["chat", "completions", "messages"] as const;
/** Of all sizes and scripts, with what JSON escapes. */
const anyText = fc.oneof(
  { weight: 8, arbitrary: fc.string({ minLength: 1, maxLength: 12 }) },
  { weight: 2, arbitrary: fc.string({ unit: "grapheme", minLength: 1, maxLength: 6 }) },
  { weight: 1, arbitrary: fc.constantFrom('"', "\\n\n", "x".repeat(3000), '","content":"') },
);
/** An answer: runs of events of one kind, as they come in practice, one after the other. */
const streamOf = (api: ApiName) =>
  fc
    .array(fc.tuple(fc.constantFrom(...(pieces[api] ?? [])), fc.array(anyText, { minLength: 1, maxLength: 12 })))
    .map((runs) => runs.flatMap(([make, texts]) => texts.map(make)));

describe.each(apis)("M4: of an answer of %s", (api) => {
  it("the text alone is counted, whatever else makes its events large, and however the network cuts it", () => {
    fc.assert(
      fc.property(streamOf(api), fc.boolean(), fc.constantFrom(0, 0, 700, 4096), (stream, collects, cut) => {
        const { texts, outputTokens } = read(
          api,
          collects,
          stream.map(({ event }) => event),
          cut,
        );
        const lengths = stream.map(({ text }) => Buffer.byteLength(text));
        expect(texts).toEqual(lengths);
        expect(outputTokens).toBe(lengths.reduce((sum, length) => sum + estimatedTokens(length), 0));
      }),
      { numRuns: 150 },
    );
  });
});

it("M4: an estimate is no more than the text has bytes, one for a token, and the more the longer the text is", () => {
  let last = 0;
  for (let bytes = 0; bytes < 5000; bytes++) {
    const tokens = estimatedTokens(bytes);
    expect(tokens).toBeLessThanOrEqual(bytes);
    expect(tokens).toBeGreaterThanOrEqual(Math.max(last, Math.floor(bytes / 20)));
    if (bytes > 0 && bytes <= 16) expect(tokens).toBe(1);
    last = tokens;
  }
});

/** A guard for a response with `output` reserved tokens, whose hold may grow by `room` more. */
function guardOf(output: number, room: number, hasMaxTokens = true) {
  const blocking: QuotaLimit = { metric: "tokens", per: "total", max: 0 };
  let left = room;
  const hold = {
    grow({ tokens }: Charge) {
      if (tokens > left) return blocking;
      left -= tokens;
      return null;
    },
  } as unknown as Hold;
  const cost = {
    reservedOutput: output,
    choices: 2,
    hasMaxTokens,
    more: (tokens: number): Charge => ({ requests: 0, tokens, cost: 0, currency: "CNY" }),
  } as unknown as RequestCost;
  return { guard: new BudgetGuard(hold, cost, true), left: () => left };
}

describe("M5: with no room beyond what is held", () => {
  it("an answer inside its max_tokens is never cut, whatever its events are like", () => {
    // No token has more bytes; a provider may send several in one event.
    const token = fc.string({ minLength: 1, maxLength: 31 });
    const event = fc.array(token, { maxLength: 4 });
    fc.assert(
      fc.property(fc.array(event, { maxLength: 40 }), (events) => {
        const output = events.flat().length;
        const { guard, left } = guardOf(output, 0);
        for (const tokens of events) expect(guard.letThrough(Buffer.byteLength(tokens.join("")), "part")).toBe(true);
        expect(left()).toBe(0);
      }),
    );
  });

  it.each<[number, EventRole, boolean]>([
    [0, "part", true],
    [5, "finish", true],
    [0, "usage", true],
    [5, "part", false],
  ])("an event with %i bytes of text that is a %s passes behind a full answer: %s", (bytes, role, passes) => {
    const { guard } = guardOf(3, 0);
    for (let sent = 0; sent < 3; sent++) expect(guard.letThrough(5, "part")).toBe(true);
    expect(guard.letThrough(bytes, role)).toBe(passes);
    if (!passes) expect(guard.report()).toMatchObject({ outputTokens: 3 });
  });

  it("each choice may end, and no more pass of a provider that says so in every event", () => {
    const { guard } = guardOf(3, 0, false);
    for (let sent = 0; sent < 3; sent++) expect(guard.letThrough(5, "finish")).toBe(true);
    expect([1, 2, 3].map(() => guard.letThrough(5, "finish"))).toEqual([true, true, false]);
  });

  it("a long piece of text counts by its length once it can't be inside max_tokens any more", () => {
    expect(guardOf(100, 1000).guard.letThrough(20_000, "part")).toBe(false);
    expect(guardOf(100, 10_000).guard.letThrough(20_000, "part")).toBe(true);
  });

  it("an answer of any length counts by its length where nobody has named a max_tokens", () => {
    const { guard } = guardOf(100, 0, false);
    expect(guard.letThrough(400, "part")).toBe(true);
    expect(guard.letThrough(400, "part")).toBe(false);
  });
});

it.each([0, 1, 20, 255, 256, 300])("M5: of a room of %i tokens all is used, however large a step is", (room) => {
  const { guard, left } = guardOf(10, room);
  let shown = 0;
  while (guard.letThrough(3, "part")) shown++;
  expect(shown).toBe(10 + room);
  expect(left()).toBe(0);
});

describe("M4, M5: an answer whose events are large and whose limit is small", () => {
  const body = (rest: object) => ({
    model: "flash",
    stream: true,
    logprobs: true,
    top_logprobs: 20,
    messages: [{ role: "user", content: "hi" }],
    ...rest,
  });
  const words = Array.from({ length: 20 }, (_, index) => `word ${index} `);

  it("arrives whole", async () => {
    const asked = body({ max_tokens: 20 });
    const held = Math.ceil(JSON.stringify(asked).length / 2) + 20;
    const billed = await startBilledProxy({ maxTokens: held + 5 });
    const opening = billed.ask("/chat/completions", asked);
    const call = await billed.upstream.next();
    await call.event(chatChunk({ role: "assistant", content: "" }));
    for (const word of words) await call.event(chatChunk({ content: word }, { logprobs }));
    await call.finish({ prompt_tokens: 10, completion_tokens: 20, total_tokens: 30 });
    const events = await (await opening).rest();
    expect(events.map(({ json }) => json?.choices[0].delta.content ?? "").join("")).toBe(words.join(""));
    expect(events.at(-1)?.data).toBe("[DONE]");
    expect(await billed.used()).toEqual(priced(10, 20));
  });

  it("is charged by its text where its client leaves", async () => {
    const billed = await startBilledProxy({ config: '[abort]\npolicy = "cancel"\n' });
    const asked = body({ max_tokens: 100 });
    const opening = billed.ask("/chat/completions", asked);
    const call = await billed.upstream.next();
    for (const word of words) await call.event(chatChunk({ content: word }, { logprobs }));
    const client = await opening;
    for (let seen = 0; seen < 20; seen++) await client.nextEvent();
    client.leave();
    await call.closed;
    expect(await billed.logged()).toMatchObject({ outcome: "client_gone", output_tokens: 20, estimated: true });
  });

  it("is drained for drain_tokens of its text", async () => {
    const billed = await startBilledProxy({
      config: '[abort]\npolicy = "drain"\ndrain_seconds = 60\ndrain_tokens = 20\n',
    });
    const opening = billed.ask("/chat/completions", body({ max_tokens: 100 }));
    const call = await billed.upstream.next();
    await call.delta("one");
    const client = await opening;
    await client.nextEvent();
    await billed.away(() => {
      client.leave();
    });
    for (const word of words) await call.event(chatChunk({ content: word }, { logprobs }));
    await call.finish({ prompt_tokens: 10, completion_tokens: 21, total_tokens: 31 });
    expect(await billed.logged()).toMatchObject({ outcome: "client_gone", output_tokens: 21, estimated: false });
    expect(call.left).toBe(false);
  });

  it("costs nothing where it was to be one JSON and is cut, and what it has come to where the client gets the part", async () => {
    for (const [headers, cost] of [
      [{}, 0],
      [{ "x-partial": "true" }, 1],
    ] as const) {
      const asked = { ...body({ max_tokens: 20 }), stream: false };
      const billed = await startBilledProxy({ maxTokens: Math.ceil(JSON.stringify(asked).length / 2) + 25 });
      const asking = billed.ask("/v1/chat/completions", asked, headers);
      const call = await billed.upstream.next();
      for (let sent = 0; sent < 30; sent++) await call.delta("word ").catch(() => undefined);
      expect((await asking).status).toBe(402);
      expect(await billed.logged()).toMatchObject({ outcome: "quota_cut", output_tokens: 25 });
      expect((await billed.used())[0]).toBe(cost * 2);
    }
  });
});

/** A short answer that reports this usage; undefined: none. */
const answers: Readonly<Record<string, (usage?: object) => readonly object[]>> = {
  "/v1/chat/completions": (usage) => [
    { choices: [{ index: 0, delta: { content: "Hello" }, finish_reason: "stop" }] },
    { choices: [], usage },
  ],
  "/anthropic/v1/messages": (usage) => [
    { type: "message_start", message: { id: "m", type: "message", role: "assistant", content: [] } },
    { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
    { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "Hello" } },
    { type: "content_block_stop", index: 0 },
    { type: "message_delta", delta: { stop_reason: "end_turn" }, usage },
    { type: "message_stop" },
  ],
  "/v1/responses": (usage) => [
    { type: "response.output_text.delta", output_index: 0, content_index: 0, delta: "Hello" },
    { type: "response.completed", response: { id: "r", status: "completed", output: [], usage } },
  ],
};

describe("usage of more tokens than can be counted", () => {
  const most = Number.MAX_SAFE_INTEGER;
  const prompt = [{ role: "user", content: "Hello" }];

  it.each([
    ["/v1/chat/completions", { messages: prompt }, { prompt_tokens: most, completion_tokens: most }],
    [
      "/anthropic/v1/messages",
      { messages: prompt },
      { input_tokens: most, cache_read_input_tokens: 9, output_tokens: 3 },
    ],
    ["/v1/responses", { input: prompt }, { input_tokens: 3, output_tokens: most }],
  ])("is estimated for %s, as where none is reported, and the charge is settled", async (path, asked, absurd) => {
    const kind = path === "/v1/responses" ? "openai" : "deepseek";
    const { proxy, upstream, ask, used } = await startBilledProxy({ kind });
    const charges: (readonly number[])[] = [];
    for (const usage of [undefined, absurd]) {
      const asking = ask(path, { model: "flash", stream: true, max_tokens: 10, ...asked });
      const call = await upstream.next();
      for (const event of answers[path]?.(usage) ?? []) await call.event(event);
      await (path === "/v1/chat/completions" ? call.done() : undefined);
      call.end();
      await (await asking).rest();
      await eventually(async () => void charges.push(await used()));
    }
    const [first = [], both] = charges;
    expect(both).toEqual(first.map((amount) => 2 * amount));
    const rows = await proxy.services.ledger.usage({ user: "alice", from: "2000-01-01", to: "2100-01-01" });
    expect(rows).toMatchObject([{ estimated: 2, unsettled: 0, outcomes: { completed: 2 } }]);
  });
});
