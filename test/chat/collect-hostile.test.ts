import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ChatCollector } from "../../src/chat/shapes/chat-collector.ts";
import { chunk, collect } from "../support/completion-chunks.ts";

describe("Collector", () => {
  it("never throws, whatever the chunks are", () => {
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
        expect(collect(chunks).object).toBe("chat.completion");
      }),
    );
  });

  it("skips what is of a wrong shape and keeps the rest", () => {
    const wrong = [null, 1, [], { choices: {} }, { choices: [null, 1] }, chunk(null), chunk({ tool_calls: [null, 1] })];
    const answer = collect([...wrong, chunk({ content: "a" }), chunk({ tool_calls: {} })]);
    expect(answer.choices).toEqual([
      { index: 0, message: { role: "assistant", content: "a" }, logprobs: null, finish_reason: null },
    ]);
  });

  it("takes __proto__ for a key like any other", () => {
    const text = '{"__proto__":{"x":1},"choices":[{"__proto__":{"x":1},"delta":{"__proto__":{"x":1},"content":"a"}}]}';
    const collector = new ChatCollector();
    collector.add(JSON.parse(text));
    collector.add(JSON.parse(text));
    expect(JSON.stringify(collector.result())).toContain('"content":"aa"');
    expect(({} as Record<string, unknown>).x).toBeUndefined();
  });

  it("does not change the chunks, nor the result when more is added", () => {
    const collector = new ChatCollector();
    const first = chunk({ content: "a", list: [1], o: { s: "a" } }, { logprobs: { content: [{ token: "a" }] } });
    const before = JSON.stringify(first);
    collector.add(first);
    const result = JSON.stringify(collector.result());
    collector.add(first);
    expect(JSON.stringify(first)).toBe(before);
    expect(result).toContain('"content":"a"');
    expect(JSON.stringify(collector.result())).toContain('"content":"aa"');
  });

  it("collects ten thousand chunks", () => {
    const chunks = Array.from({ length: 10_000 }, (_, i) => chunk({ content: `${i} ` }));
    const expected = Array.from({ length: 10_000 }, (_, i) => `${i} `).join("");
    expect(collect(chunks).choices[0]?.message.content).toBe(expected);
  });
});
