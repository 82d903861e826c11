import { fc } from "../support/fast-check.ts";
import { describe, expect, it, vi } from "vitest";
import { TwinParser } from "../../src/lib/twin-pattern.ts";

/** Parses one text after the other with the same parser. */
function parseAll(texts: readonly string[], parser = new TwinParser()): unknown[] {
  return texts.map((text) => {
    const bytes = Buffer.from(`<${text}>`);
    try {
      return parser.parse(bytes, 1, bytes.length - 1);
    } catch (error) {
      return error instanceof SyntaxError ? "SyntaxError" : error;
    }
  });
}

/** A parser that has begun to look for patterns. */
function attentive(): TwinParser {
  const parser = new TwinParser();
  for (let i = 0; i < 15; i++) parseAll(["[]"], parser);
  return parser;
}

function reference(texts: readonly string[]): unknown[] {
  return texts.map((text) => {
    try {
      return JSON.parse(Buffer.from(text).toString()) as unknown;
    } catch {
      return "SyntaxError";
    }
  });
}

const chunk = (content: unknown, rest: object = {}) =>
  JSON.stringify({ id: "x", choices: [{ index: 0, delta: { content }, finish_reason: null }], usage: null, ...rest });

describe("objects that differ in one text", () => {
  const words = ["Hello", " world", "", 'a "quoted" one', "\\", "\\u0041", "new\nline", "ä一🙂", "\u2028", "Hello"];

  it("are what JSON.parse makes of them", () => {
    const texts = words.map((word) => chunk(word));
    expect(parseAll(texts, attentive())).toEqual(reference(texts));
  });

  it("are not parsed whole once a few of them have been seen", () => {
    const parse = vi.spyOn(JSON, "parse");
    try {
      const texts = Array.from({ length: 100 }, (_, index) => chunk(`word ${index}`));
      parseAll(texts);
      const whole = parse.mock.calls.filter(([text]) => texts.includes(text));
      expect(whole).toHaveLength(17);
    } finally {
      parse.mockRestore();
    }
  });

  it("stay apart from each other", () => {
    const [first, second, third] = parseAll(
      ["a", "b", "c"].map((word) => chunk(word)),
      attentive(),
    );
    expect([first, second, third]).toEqual(["a", "b", "c"].map((word) => JSON.parse(chunk(word)) as unknown));
  });
});

it.each([
  ["a text that ends early and goes on as something else", [chunk("a"), chunk("b"), '{"id":"x"} "']],
  [
    "bytes that fit around a text that is none",
    [`{"a":"x"}`, `{"a":"y"}`, `{"a":"z","b":1,"c":"w"}`, `{"a":"\\"}`, `{"a":"\t"}`, `{"a":"}`],
  ],
  ["a number that differs", ['{"a":1}', '{"a":2}', '{"a":3}', '{"a":"x"}']],
  ["a key that differs", ['{"a":1}', '{"b":1}', '{"c":1}']],
  ["two texts that differ", ['{"a":"1","b":"1"}', '{"a":"2","b":"2"}', '{"a":"3","b":"1"}', '{"a":"3","b":"3"}']],
  ["the same key twice", ['{"a":"1","a":"x"}', '{"a":"2","a":"x"}', '{"a":"3","a":"x"}', '{"a":"3","a":"y"}']],
  ["a key that is special", ['{"__proto__":"1"}', '{"__proto__":"2"}', '{"__proto__":"3"}']],
  ["texts alone", ['"a"', '"b"', '"c"', '"d'].slice()],
  ["the same again", ['{"a":"1"}', '{"a":"1"}', '{"a":"1"}', '{"a":"2"}', '{"a":"3"}']],
  ["nothing", ["", "", "{}", "{}", "[]"]],
])("is right about %s", (_, texts) => {
  expect(parseAll(texts, attentive())).toEqual(reference(texts));
});

it("is right about whatever comes, in whatever order", () => {
  const piece = fc.oneof(
    fc.string({ unit: "grapheme" }).map((text) => chunk(text)),
    fc.string().map((text) => chunk(text, { usage: { tokens: 1 } })),
    fc.string().map((text) => `{"a":"${text}"}`),
    fc.constantFrom('{"a":"x"}', '{"a":"\\u00', '{"a":"x","b":"y"}', '{"a":"x"}}', "null"),
    fc.json(),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 20 }), (texts) => {
      expect(parseAll(texts, attentive())).toEqual(reference(texts));
    }),
    { numRuns: 500 },
  );
});
