import { describe, expect, it } from "vitest";
import { withoutQuotes } from "../../src/lib/quoted-text.ts";

const prompt = {
  messages: [{ role: "user", content: [{ type: "text", text: "Nobody knows of the plan B\nbut us." }] }],
};

describe("what a text quotes of a value", () => {
  it.each([
    ["blocked: Nobody knows of the plan B", "blocked: [quoted]"],
    ["Nobody knows of it", "[quoted]it"],
    ["say 'the plan B\nbut us.' and 'Nobody knows'", "say '[quoted]' and '[quoted]'"],
    ["Nobody knowsNobody knows!", "[quoted]!"],
    ["messages[0].content: field required", "messages[0].content: field required"],
    ["the plan B is short", "the plan B is short"],
    ["plan B", "plan B"],
    ["", ""],
  ])("%j becomes %j", (text, expected) => {
    expect(withoutQuotes(text, prompt)).toBe(expected);
  });

  it("is found in other scripts, and in a value that repeats itself a hundred thousand times", () => {
    expect(withoutQuotes("错误：我们不应该告诉任何人这个计划。", { input: "我们不应该告诉任何人这个计划。" })).toBe(
      "错误：[quoted]",
    );
    const text = "refused: abababababababab";
    expect(withoutQuotes(text, ["ab".repeat(100_000)])).toBe("refused: [quoted]");
  });

  it("is not looked for in what is too long, and nothing is shown", () => {
    const value = ["x".repeat(150_000), "y".repeat(150_000)];
    expect(withoutQuotes("a text of some length", value)).toBe("[not shown]");
  });

  it("is nothing where there is no text", () => {
    for (const value of [undefined, null, 1, {}, [], { a: [null, true] }])
      expect(withoutQuotes("a text of some length", value)).toBe("a text of some length");
  });
});
