import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { CompletionCollector } from "../../src/gateway/formats/completions.ts";
import { UnmergeableError } from "../../src/gateway/formats/merge-fields.ts";
import { MessageCollector } from "../../src/gateway/formats/messages.ts";

const message = (events: readonly unknown[]) => {
  const collector = new MessageCollector();
  for (const event of events) collector.add(event);
  return { whole: JSON.parse(collector.body()), partial: JSON.parse(collector.partial()) };
};
const completion = (chunks: readonly unknown[]) => {
  const collector = new CompletionCollector();
  for (const chunk of chunks) collector.add(chunk);
  return { whole: JSON.parse(collector.body()), partial: JSON.parse(collector.partial()) };
};
const start = { type: "message_start", message: { id: "m", model: "x", content: [], usage: { input_tokens: 3 } } };
const block = (index: number, content_block: object) => ({ type: "content_block_start", index, content_block });
const delta = (index: number, fields: object) => ({ type: "content_block_delta", index, delta: fields });
const end = (stop_reason: string, usage: object = { output_tokens: 2 }) => ({
  type: "message_delta",
  delta: { stop_reason, stop_sequence: null },
  usage,
});

describe("MessageCollector", () => {
  it("collects thinking, text, citations and tools into the message that was streamed", () => {
    const { whole } = message([
      start,
      block(0, { type: "thinking", thinking: "", signature: "" }),
      delta(0, { type: "thinking_delta", thinking: "Hm" }),
      delta(0, { type: "thinking_delta", thinking: "m." }),
      delta(0, { type: "signature_delta", signature: "sig" }),
      { type: "content_block_stop", index: 0 },
      block(1, { type: "text", text: "" }),
      delta(1, { type: "text_delta", text: "Let " }),
      delta(1, { type: "citations_delta", citation: { cited_text: "a" } }),
      delta(1, { type: "text_delta", text: "me." }),
      delta(1, { type: "citations_delta", citation: { cited_text: "b" } }),
      block(2, { type: "tool_use", id: "t", name: "f", input: {} }),
      delta(2, { type: "input_json_delta", partial_json: '{"city": "北' }),
      delta(2, { type: "input_json_delta", partial_json: '京"}' }),
      block(3, { type: "tool_use", id: "u", name: "g", input: {} }),
      end("tool_use", { output_tokens: 9 }),
    ]);
    expect(whole).toEqual({
      id: "m",
      type: "message",
      role: "assistant",
      model: "x",
      content: [
        { type: "thinking", thinking: "Hmm.", signature: "sig" },
        { type: "text", text: "Let me.", citations: [{ cited_text: "a" }, { cited_text: "b" }] },
        { type: "tool_use", id: "t", name: "f", input: { city: "北京" } },
        { type: "tool_use", id: "u", name: "g", input: {} },
      ],
      stop_reason: "tool_use",
      stop_sequence: null,
      usage: { input_tokens: 3, output_tokens: 9 },
    });
  });

  it("keeps a tool's input that comes whole as it is, whatever its lists hold", () => {
    const edits = [
      { index: 1, type: "text", text: "a" },
      { index: 0, text: "b" },
      { index: 0, text: "c" },
    ];
    const tool = { type: "tool_use", id: "t", name: "f", input: { edits, role: "", none: null } };
    const { whole } = message([start, block(0, tool), end("tool_use")]);
    expect(whole).toMatchObject({ content: [tool] });
  });

  it("keeps a tool's input that was cut beside an empty one", () => {
    const tool = { type: "tool_use", id: "t", name: "f", input: {} };
    const json = '{"city": "Bei';
    const { whole, partial } = message([
      start,
      block(0, tool),
      delta(0, { type: "input_json_delta", partial_json: json }),
      end("max_tokens"),
    ]);
    expect(whole).toMatchObject({ content: [{ ...tool, partial_json: json }], stop_reason: "max_tokens" });
    expect(partial).toMatchObject({ content: [{ ...tool, partial_json: json }], stop_reason: null });
  });

  it("takes __proto__ for a key like any other, and changes no event", () => {
    const text = '{"type":"content_block_delta","index":0,"delta":{"__proto__":{"x":1},"text":"a"}}';
    const first = block(0, { type: "text", text: "" });
    const before = JSON.stringify(first);
    const { whole } = message([start, first, JSON.parse(text), JSON.parse(text)]);
    expect(whole.content[0].text).toBe("aa");
    expect(JSON.stringify(first)).toBe(before);
    expect(({} as Record<string, unknown>).x).toBeUndefined();
  });
});

describe("CompletionCollector", () => {
  it("joins text by choice, appends logprobs, and takes the last of the rest", () => {
    const chunk = (index: number, text: string, rest: object = {}) => ({
      id: "c",
      object: "text_completion",
      choices: [{ index, text, logprobs: null, finish_reason: null, ...rest }],
      usage: null,
    });
    const { whole, partial } = completion([
      chunk(1, "b", { logprobs: { tokens: ["b"], text_offset: [0] } }),
      chunk(0, "a"),
      chunk(1, "c", { logprobs: { tokens: ["c"], text_offset: [1] }, finish_reason: "length" }),
      { ...chunk(0, "", { finish_reason: "stop" }), usage: { prompt_tokens: 1 } },
    ]);
    const choices = [
      { text: "a", index: 0, logprobs: null, finish_reason: "stop" },
      { text: "bc", index: 1, logprobs: { tokens: ["b", "c"], text_offset: [0, 1] }, finish_reason: "length" },
    ];
    expect(whole).toEqual({ id: "c", object: "text_completion", choices, usage: { prompt_tokens: 1 } });
    expect(partial.choices).toEqual(choices.map((choice) => ({ ...choice, finish_reason: null })));
  });
});

describe("both", () => {
  it("throw nothing but UnmergeableError, whatever the events are", () => {
    const odd = fc.oneof(
      fc.jsonValue(),
      fc.record({ choices: fc.jsonValue() }),
      fc.record({ choices: fc.array(fc.record({ index: fc.jsonValue(), text: fc.jsonValue() })) }),
      fc.record({ type: fc.constant("message_start"), message: fc.jsonValue() }),
      fc.record({ type: fc.constant("message_delta"), delta: fc.jsonValue(), usage: fc.jsonValue() }),
      fc.record({ type: fc.constant("content_block_start"), index: fc.nat(2), content_block: fc.jsonValue() }),
      fc.record({
        type: fc.constant("content_block_delta"),
        index: fc.nat(2),
        delta: fc.record({ text: fc.jsonValue(), partial_json: fc.jsonValue(), citation: fc.jsonValue() }),
      }),
    );
    fc.assert(
      fc.property(fc.array(odd), (events) => {
        for (const collect of [completion, message]) {
          try {
            expect(collect(events).whole).toBeTypeOf("object");
          } catch (error) {
            expect(error).toBeInstanceOf(UnmergeableError);
          }
        }
      }),
    );
  });
});
