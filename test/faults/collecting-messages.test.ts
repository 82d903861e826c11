import { describe, expect, it } from "vitest";
import { UnmergeableError } from "../../src/gateway/formats/merge-fields.ts";
import { MessageCollector } from "../../src/gateway/formats/messages.ts";
import { chunk, collect } from "../support/completion-chunks.ts";

const text = (value: string) => ({ type: "text", text: value });

describe("C4: fields that are no framing", () => {
  const start = { type: "message_start", message: { id: "m", content: [], usage: { input_tokens: 3 } } };
  const block = (index: number, content_block: object) => ({ type: "content_block_start", index, content_block });
  const delta = (index: number, fields: object) => ({ type: "content_block_delta", index, delta: fields });

  it("are kept from message_delta, message_start and the events of a block", () => {
    const context_management = { applied_edits: [{ type: "clear_tool_uses", cleared: 1 }] };
    expect(
      messageJson(
        { ...start, beside: 1 },
        { ...block(0, { type: "text", text: "" }), note: "n" },
        delta(0, { type: "text_delta", text: "a" }),
        { type: "content_block_stop", index: 0, ended: true },
        {
          type: "message_delta",
          delta: { stop_reason: "end_turn", container: { id: "c" } },
          usage: { output_tokens: 1 },
          context_management,
          p: "abcdef",
        },
      ),
    ).toEqual({
      type: "message",
      role: "assistant",
      id: "m",
      beside: 1,
      content: [{ type: "text", text: "a", note: "n", ended: true }],
      stop_reason: "end_turn",
      container: { id: "c" },
      usage: { input_tokens: 3, output_tokens: 1 },
      context_management,
    });
  });

  it("are dropped where they only pad", () => {
    const padded = { obfuscation: "xyz", p: "abc" };
    const answer = collect([{ ...chunk({ content: "a", ...padded }, padded), ...padded }]);
    const { whole } = { whole: messageJson(start, block(0, text("")), delta(0, { text: "a", ...padded })) };
    expect(JSON.stringify([answer, whole])).not.toMatch(/xyz|abc/);
  });

  it.each([
    ["a block without a start", [delta(0, { type: "text_delta", text: "a" })], [text("a")]],
    [
      "deltas without an index",
      [block(0, text("")), { type: "content_block_delta", delta: { type: "text_delta", text: "a" } }],
      [text("a")],
    ],
    ["a start that is said twice", [block(0, text("")), block(0, text("")), delta(0, { text: "a" })], [text("a")]],
    [
      "two blocks at one index",
      [block(0, text("")), delta(0, { text: "a" }), block(0, text("")), delta(0, { text: "b" })],
      [text("a"), text("b")],
    ],
    ["blocks that are whole at their start", [block(0, text("a")), block(0, text("b"))], [text("a"), text("b")]],
    [
      "a whole message in one event",
      [{ type: "message", id: "m", content: [text("a"), text("b")], usage: {} }],
      [text("a"), text("b")],
    ],
    [
      "numbers of a tool's input that JavaScript can't hold",
      [
        block(0, { type: "tool_use", input: {} }),
        delta(0, { partial_json: '{"n":1' }),
        delta(0, { partial_json: "e2}" }),
      ],
      [{ type: "tool_use", input: { n: 100 } }],
    ],
  ])("nothing is lost of %s", (_name, events, content) => {
    expect(messageJson(...events)).toMatchObject({ content });
  });

  it("keeps a tool's input as it was written", () => {
    const json = '{"id":12345678901234567890}';
    const collector = new MessageCollector();
    for (const event of [start, block(0, { type: "tool_use", input: {} }), delta(0, { partial_json: json })]) {
      collector.add(event);
    }
    expect(collector.body()).toContain(`"input":${json}`);
  });

  it.each([
    ["a delta of a tool whose block never began", [delta(3, { type: "input_json_delta", partial_json: "{" })]],
    ["a text that goes on as a list", [block(0, text("a")), delta(0, { text: { b: 1 } })]],
    ["input that is no text", [block(0, { type: "tool_use" }), delta(0, { partial_json: { a: 1 } })]],
  ])("%s is refused", (_name, events) => {
    expect(() => messageJson(...events)).toThrow(UnmergeableError);
  });
});

function messageJson(...events: readonly unknown[]): unknown {
  const collector = new MessageCollector();
  for (const event of events) collector.add(event);
  return JSON.parse(collector.body());
}
