import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { ChatCollector } from "../../src/gateway/formats/chat-completions.ts";
import { UnmergeableError } from "../../src/gateway/formats/merge-fields.ts";
import { chunk, collect } from "../support/completion-chunks.ts";

describe("Collector", () => {
  it("throws nothing but UnmergeableError, whatever the chunks are", () => {
    const odd = fc.oneof(
      fc.jsonValue(),
      fc.record({ choices: fc.jsonValue() }),
      fc.record({
        choices: fc.array(fc.record({ index: fc.jsonValue(), delta: fc.jsonValue(), logprobs: fc.jsonValue() })),
      }),
      fc
        .record({ tool_calls: fc.array(fc.jsonValue()), content: fc.jsonValue(), role: fc.jsonValue() })
        .map((delta) => chunk(delta)),
    );
    fc.assert(
      fc.property(fc.array(odd), (chunks) => {
        try {
          expect(collect(chunks).object).toBe("chat.completion");
        } catch (error) {
          expect(error).toBeInstanceOf(UnmergeableError);
        }
      }),
    );
  });

  it.each([
    ["an event", 1],
    ["choices", { choices: { a: 1 } }],
    ["a choice", { choices: [1] }],
    ["a delta", chunk("text")],
    ["a list as a delta", chunk(["text"])],
    ["tool calls", chunk({ tool_calls: { a: 1 } })],
    ["a tool call", chunk({ tool_calls: [1] })],
    ["a tool call's index", chunk({ tool_calls: [{ index: 0.5 }] })],
    ["logprobs", chunk({}, { logprobs: 1 })],
  ])("refuses %s of a wrong shape rather than lose it", (_name, wrong) => {
    expect(() => collect([chunk({ content: "a" }), wrong])).toThrow(UnmergeableError);
  });

  it("takes whatever is null or empty for nothing", () => {
    const nothing = [{ choices: null }, { choices: [] }, { choices: [null, {}] }, chunk(null), chunk({}), chunk("")];
    const calls = [null, [], {}, ""].map((tool_calls) => chunk({ tool_calls }));
    const answer = collect([...nothing, chunk({ content: "a" }), ...calls, chunk({ tool_calls: [null, {}] })]);
    expect(answer.choices[0]).toEqual({
      index: 0,
      message: { role: "assistant", content: "a" },
      logprobs: null,
      finish_reason: null,
    });
  });

  it("takes __proto__ for a key like any other", () => {
    const text = '{"__proto__":{"x":1},"choices":[{"__proto__":{"x":1},"delta":{"__proto__":{"x":1},"content":"a"}}]}';
    const collector = new ChatCollector();
    collector.add(JSON.parse(text));
    collector.add(JSON.parse(text));
    expect(collector.body()).toContain('"content":"aa"');
    expect(({} as Record<string, unknown>).x).toBeUndefined();
  });

  it("does not change the chunks, nor the result when more is added", () => {
    const collector = new ChatCollector();
    const first = chunk({ content: "a", list: [1], o: { s: "a" } }, { logprobs: { content: [{ token: "a" }] } });
    const before = JSON.stringify(first);
    collector.add(first);
    const result = collector.body();
    collector.add(first);
    expect(JSON.stringify(first)).toBe(before);
    expect(result).toContain('"content":"a"');
    expect(collector.body()).toContain('"content":"aa"');
  });

  it("collects ten thousand chunks", () => {
    const chunks = Array.from({ length: 10_000 }, (_, i) => chunk({ content: `${i} ` }));
    const expected = Array.from({ length: 10_000 }, (_, i) => `${i} `).join("");
    expect(collect(chunks).choices[0]?.message.content).toBe(expected);
  });
});
