import { describe, expect, it } from "vitest";
import { ChatCollector } from "../../src/gateway/formats/chat-completions.ts";
import { CompletionCollector } from "../../src/gateway/formats/completions.ts";
import { MessageCollector } from "../../src/gateway/formats/messages.ts";
import { ResponseCollector } from "../../src/gateway/formats/responses.ts";
import { createReader } from "../../src/providers/stream/response-body.ts";
import { fc } from "../support/fast-check.ts";
import { testProvider } from "../support/provider.ts";

/*
 * Well-formed streams of every API, of any text and framing, cut by the network anywhere: what is passed on, counted,
 * charged and collected must be the same as of the whole stream, of which each event is parsed.
 */
const provider = testProvider("any");
const collectors = {
  chat: () => new ChatCollector(),
  completions: () => new CompletionCollector(),
  messages: () => new MessageCollector(),
  responses: () => new ResponseCollector(),
};
type Api = keyof typeof collectors;

function read(api: Api, pieces: readonly Buffer[], parsesAll: boolean) {
  const handed: string[] = [];
  const collector = collectors[api]();
  const reader = createReader(api, parsesAll, provider, {
    onEvent(event, start, end, textBytes, role, parsed) {
      handed.push(`${role} ${textBytes} ${event.toString("utf8", start, end)}`);
      if (parsesAll) collector.add(parsed);
    },
    onBatch: () => undefined,
    onEnd: () => undefined,
  });
  // A copy for each: what the network brings is not one buffer.
  for (const piece of pieces) reader.push(Buffer.from(piece));
  const { graceMs, done } = reader;
  const facts = { fault: reader.end()?.facts.kind, usage: reader.usage, prompt: reader.prompt, graceMs, done };
  return { handed, ...facts, outputTokens: reader.outputTokens, body: parsesAll ? collector.body() : undefined };
}

const piece = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 12 }),
  fc.constantFrom(
    "a",
    " ",
    '"usage":{"output_tokens":1}',
    '\\"',
    "data: [DONE]\n\n",
    "\u2028",
    "message_stop",
    "delta",
  ),
);
const pieces = fc.array(piece, { minLength: 1, maxLength: 25 });
const count = fc.nat(1000);
const arrayOf = <T>(item: fc.Arbitrary<T>) => fc.array(item, { maxLength: 3 });

const chunk = (choices: readonly object[], usage: unknown = null): object => ({ id: "c", choices, usage });
const delta = (index: number, fields: object, finish_reason: string | null = null): object =>
  chunk([{ index, delta: fields, finish_reason }]);

const chat = fc
  .record({
    reasoning: pieces,
    content: pieces,
    calls: arrayOf(pieces),
    choices: fc.constantFrom(1, 1, 2),
    usages: fc.tuple(count, count),
    usageWith: fc.constantFrom("finish", "own event", "choice", "choice, then own event"),
  })
  .map(({ reasoning, content, calls, choices, usages: [prompt_tokens, completion_tokens], usageWith }) => {
    const usage = { prompt_tokens, completion_tokens };
    const indices = Array.from({ length: choices }, (_, index) => index);
    return [
      ...indices.map((index) => delta(index, { role: "assistant", content: "" })),
      ...reasoning.map((reasoning_content) => delta(0, { content: null, reasoning_content })),
      ...content.flatMap((text) => indices.map((index) => delta(index, { content: text }))),
      ...calls.flatMap((args, index) => [
        delta(0, { tool_calls: [{ index, id: `call_${index}`, type: "function", function: { name: "f" } }] }),
        ...args.map((text) => delta(0, { tool_calls: [{ index, function: { arguments: text } }] })),
      ]),
      ...indices.map((index) =>
        chunk(
          [
            {
              index,
              delta: {},
              finish_reason: "stop",
              ...(usageWith.startsWith("choice") ? { usage: { ...usage, prompt_tokens: 1 } } : {}),
            },
          ],
          usageWith === "finish" ? usage : null,
        ),
      ),
      ...(usageWith.endsWith("own event") ? [chunk([], usage), delta(0, { content: "" })] : []),
    ];
  });

const completions = fc
  .tuple(pieces, count)
  .map(([texts, tokens]) => [
    ...texts.map((text) => chunk([{ index: 0, text, finish_reason: null }])),
    chunk([{ index: 0, text: "", finish_reason: "length" }], { prompt_tokens: 3, completion_tokens: tokens }),
  ]);

const messages = fc
  .record({ blocks: fc.array(fc.tuple(fc.constantFrom("text", "thinking", "tool_use"), pieces)), input: count })
  .map(({ blocks, input }) => [
    { type: "message_start", message: { id: "m", content: [], usage: { input_tokens: input, output_tokens: 1 } } },
    ...blocks.flatMap(([type, texts], index) => {
      const key = type === "tool_use" ? "partial_json" : type;
      const [name, begun] =
        type === "tool_use" ? ["input_json_delta", { input: {} }] : [`${type}_delta`, { [key]: "" }];
      return [
        { type: "content_block_start", index, content_block: { type, ...begun } },
        ...texts.map((text) => ({ type: "content_block_delta", index, delta: { type: name, [key]: text } })),
        { type: "content_block_stop", index },
      ];
    }),
    { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: blocks.length } },
    { type: "message_stop" },
  ]);

const responses = fc.record({ items: arrayOf(pieces), repeats: fc.boolean(), tokens: count }).map((given) => {
  const { items, repeats, tokens } = given;
  const item = (text: string) => ({ type: "message", content: [{ type: "output_text", text }] });
  const whole = items.map((texts) => item(texts.join("")));
  const usage = { input_tokens: 4, output_tokens: tokens, total_tokens: 4 + tokens };
  return [
    { type: "response.created", response: { id: "r", status: "in_progress", output: [] } },
    ...items.flatMap((texts, output_index) => [
      { type: "response.output_item.added", output_index, item: { type: "message", content: [] } },
      ...texts.map((text) => ({ type: "response.output_text.delta", output_index, content_index: 0, delta: text })),
      { type: "response.output_text.done", output_index, content_index: 0, text: texts.join("") },
      { type: "response.output_item.done", output_index, item: item(texts.join("")) },
    ]),
    { type: "response.completed", response: { id: "r", status: "completed", usage, output: repeats ? whole : [] } },
  ].map((event, sequence_number) => ({ ...event, sequence_number }));
});

const streams: readonly (readonly [Api, fc.Arbitrary<readonly object[]>])[] = [
  ["chat", chat],
  ["completions", completions],
  ["messages", messages],
  ["responses", responses],
];

const framing = fc.record({
  lineEnd: fc.constantFrom("\n", "\r\n"),
  space: fc.constantFrom(" ", ""),
  before: fc.constantFrom("", ": keep-alive\n\n", "id: 7\n", "event: ping\ndata: 1\n\n", 'data: {"type":"ping"}\n\n'),
  escapes: fc.boolean(),
  ending: fc.constantFrom("data: [DONE]\n\n", ""),
});
type Framing = typeof framing extends fc.Arbitrary<infer T> ? T : never;

function bytesOf(events: readonly object[], { lineEnd, space, before, escapes, ending }: Framing): Buffer {
  const framed = events.map((event) => {
    const json = JSON.stringify(event);
    const ascii = (text: string): string => `\\u${text.charCodeAt(0).toString(16).padStart(4, "0")}`;
    const written = escapes ? json.replace(/[\u0080-\uffff]/g, ascii) : json;
    return `${before}data:${space}${written}\n\n`;
  });
  return Buffer.from([...framed, ending].join("").replaceAll("\n", lineEnd));
}

describe.each(streams)("a stream of %s", (api, events) => {
  it("is read and collected alike, wherever the network cuts it", () => {
    fc.assert(
      fc.property(events, framing, fc.array(fc.integer({ min: 1, max: 700 })), (given, frame, sizes) => {
        const bytes = bytesOf(given, frame);
        const expected = read(api, [bytes], true);
        expect(expected.fault).toBeUndefined();
        const cut: Buffer[] = [];
        for (let at = 0, turn = 0; at < bytes.length; turn++) {
          const size = sizes[turn % sizes.length] ?? 1;
          cut.push(bytes.subarray(at, at + size));
          at += size;
        }
        expect(read(api, cut, true)).toEqual(expected);
        expect(read(api, cut, false)).toEqual({ ...expected, body: undefined });
        expect(read(api, [bytes], false)).toEqual({ ...expected, body: undefined });
      }),
      { numRuns: 200 },
    );
  });
});
