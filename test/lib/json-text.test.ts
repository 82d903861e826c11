import { anyText, fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { JsonText, textBytesOf, textOrUnder, textString, textUnder } from "../../src/lib/json-text.ts";

const textOrParts = textOrUnder({ text: textString });
const shape = textUnder({ items: textUnder({ said: textOrParts }, { thought: textString, mused: textString }) });

function measure(json: string | Buffer): number {
  const bytes = Buffer.concat([Buffer.from('"said"'), Buffer.from(json), Buffer.from('"said"')]);
  return new JsonText(shape).bytesIn(bytes, 6, bytes.length - 6);
}

interface Item {
  readonly said?: string | readonly { readonly text: string }[];
  readonly thought?: string;
  readonly mused?: string;
}

/** The same, by way of the parsed value. */
function expected({ items }: { readonly items: readonly Item[] }): number {
  const length = (text = ""): number => Buffer.byteLength(text);
  return items
    .map(({ said = [], thought, mused }) => {
      const texts = typeof said === "string" ? [said] : said.map(({ text }) => text);
      return texts.reduce((sum, text) => sum + length(text), 0) + Math.max(length(thought), length(mused));
    })
    .reduce((sum, count) => sum + count, 0);
}

describe("the text in JSON", () => {
  it.each([
    ['{"items":[{"said":"abc"}]}', 3],
    [' { "items" : [ { "said" : "abc" } , { "said" : "d" } ] } ', 4],
    ['{"items":{"said":"abc"}}', 3],
    ['{"items":[{"said":""}]}', 0],
    ['{"items":[{"said":null},{"said":12},{"said":true}]}', 0],
    ['{"said":"not here","items":[{"Said":"nor here","other":{"said":"nor here"}}]}', 0],
    ['{"items":[{"said":[{"text":"abc","other":"xyz"},{"text":"de"}]}]}', 5],
    ['{"items":[{"said":["abc","de"]}]}', 5],
    ['{"items":[{"thought":"abc","mused":"abcd"}]}', 4],
    ['{"other":"\\"items\\":[{\\"said\\":\\"abc\\"}]","items":[]}', 0],
    [String.raw`{"items":[{"said":"\n\t\"\\\/"}]}`, 5],
    [String.raw`{"items":[{"said":"\u0041\u00e9\u4f60\ud83c\udf89"}]}`, 1 + 2 + 3 + 4],
    ['{"items":[{"said":"你好🎉"}]}', 10],
    ['{"items":[{"said":"abc', 3],
    ['{"items":[{"said" "abc"}]}', 0],
    ['{"items":[}]', 0],
    ["[".repeat(100_000), 0],
    ['{"items":'.repeat(10_000), 0],
    ["", 0],
  ])("%.60s: %i bytes", (json, count) => {
    expect(measure(json)).toBe(count);
  });

  it.each([
    ["here", 0],
    [{ items: [{ said: "abc" }, { said: ["de", { text: "f" }] }] }, 6],
    [{ items: { said: "你" } }, 3],
    [{ items: [null, 1, { said: null, thought: "ab", mused: "abc" }] }, 3],
    [Object.create({ items: [{ said: "inherited" }] }), 0],
  ])("is the same in a parsed value: %j", (value, count) => {
    expect(textBytesOf(value, shape)).toBe(count);
  });

  it("is not searched for without end in a parsed value", () => {
    let nested: unknown = "abc";
    for (let depth = 0; depth < 100_000; depth++) nested = [nested];
    expect(textBytesOf(nested, shape)).toBe(0);
  });

  it("is measured as the parsed value has it, however it is written", () => {
    const text = anyText();
    const item = fc.record(
      {
        id: text,
        said: fc.oneof(text, fc.array(fc.record({ type: text, text }))),
        thought: text,
        mused: text,
        other: fc.jsonValue({ maxDepth: 2 }),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(
        fc.record({ head: fc.jsonValue({ maxDepth: 2 }), items: fc.array(item) }),
        fc.boolean(),
        fc.nat(3),
        (value, ascii, indent) => {
          const json = JSON.stringify(value, null, indent);
          const escaped = (char: string): string => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
          expect(measure(ascii ? json.replace(/[\u007f-\uffff]/g, escaped) : json)).toBe(expected(value));
          expect(textBytesOf(JSON.parse(json), shape)).toBe(expected(value));
        },
      ),
      { numRuns: 40 },
    );
  });

  it("ends for any bytes, and is never more than they are", () => {
    const piece = fc.constantFrom('{"items":', "[", "]", "{", "}", '{"said":', '"', "\\", "\\u00", ",", ":", "a", " ");
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        const json = pieces.join("");
        expect(measure(json)).toBeLessThanOrEqual(json.length);
      }),
      { numRuns: 1000 },
    );
  });
});
