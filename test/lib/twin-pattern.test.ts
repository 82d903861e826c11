import { anyText, fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { TwinSearch } from "../../src/lib/twin-pattern.ts";

const chunk = (content: string): string =>
  JSON.stringify({ id: "x", choices: [{ delta: { content }, finish_reason: null }], usage: null });

/** A search that has found the pattern of these chunks. */
function searched(): TwinSearch {
  const search = new TwinSearch(2);
  for (let i = 0; i < 4; i++) {
    const bytes = Buffer.from(chunk(`word ${i}`));
    search.show(bytes, 0, bytes.length);
  }
  return search;
}

function textBytesIn(text: string): number | undefined {
  const bytes = Buffer.from(`<${text}>`);
  return searched().pattern?.textBytesIn(bytes, 1, bytes.length - 1);
}

describe("a pattern fits", () => {
  it.each(["", "a", "你好 🎉", "a\nb", 'say "usage":{"a":1}', "\\", "tab\t"])("another text: %j", (text) => {
    expect(textBytesIn(chunk(text))).toBe(Buffer.byteLength(text));
  });

  const [before = "", behind = ""] = chunk("|").split("|");
  it.each([
    ["a text that ends early", `${before}a","finish_reason":"stop","b":"${behind}`],
    ["a backslash that eats the closing quote", `${before}a\\${behind}`],
    ["an escape that is none", `${before}\\x${behind}`],
    ["an escape of four digits, which would have to be looked into", `${before}\\u00e9${behind}`],
    ["a line end in the text", `${before}a\nb${behind}`],
    ["less than what is in common", behind],
    ["an overlap of what comes before and behind", `${before}${behind.slice(1)}`],
    ["another value elsewhere", chunk("a").replace('"usage":null', '"usage":{"a":1}')],
    ["another key", chunk("a").replace('"id"', '"ID"')],
    ["something behind it", `${chunk("a")} `],
  ])("not %s", (_, text) => {
    expect(textBytesIn(text)).toBe(-1);
  });

  it("only what JSON.parse makes the same object of, but for the text", () => {
    const piece = fc.oneof(anyText(), fc.constantFrom('"', "\\", "\n", '","a":"', "\\u0041", "\\n"));
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 5 }), (pieces) => {
        const text = `${before}${pieces.join("")}${behind}`;
        const textBytes = textBytesIn(text);
        if (textBytes === -1) return;
        const parsed = JSON.parse(Buffer.from(text).toString()) as { choices: [{ delta: { content: string } }] };
        const { content } = parsed.choices[0].delta;
        expect(parsed).toEqual(JSON.parse(chunk(content)));
        expect(textBytes).toBe(Buffer.byteLength(content));
      }),
      { numRuns: 500 },
    );
  });
});

it("is not searched for among the first few objects, nor for ever", () => {
  const search = new TwinSearch(15);
  const show = (text: string): void => {
    const bytes = Buffer.from(text);
    search.show(bytes, 0, bytes.length);
  };
  for (let i = 0; i < 16; i++) show(chunk(`${i}`));
  expect(search.pattern).toBeNull();
  for (let i = 0; i < 100; i++) show(JSON.stringify({ [`key ${i}`]: i }));
  for (let i = 0; i < 100; i++) show(chunk(`${i}`));
  expect(search.pattern).toBeNull();
});
