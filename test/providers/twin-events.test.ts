import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { createReader } from "../../src/providers/stream/response-body.ts";
import { testProvider } from "../support/provider.ts";

/*
 * Events that differ in one text alone from events without facts are not looked into. So whatever is mixed in among
 * many of those, the reader must find all that a reader finds which parses each event.
 */
const provider = testProvider("any");

function read(pieces: readonly Buffer[], parsesAll: boolean) {
  const handed: string[] = [];
  const reader = createReader("chat", parsesAll, provider, {
    onEvent: (event, start, end, tokens) => handed.push(`${tokens} ${event.toString("utf8", start, end)}`),
    onBatch: () => undefined,
    onEnd: () => undefined,
  });
  for (const piece of pieces) reader.push(Buffer.from(piece));
  const { usage, outputTokens, done } = reader;
  return { handed, usage, outputTokens, done, fault: reader.end()?.facts };
}

/** Each event is its own read of the network. */
const inReads = (events: readonly string[]): Buffer[] => events.map((event) => Buffer.from(event));

const chunk = (content: string, rest: object = {}): string =>
  `data: ${JSON.stringify({ id: "x", choices: [{ index: 0, delta: { content }, finish_reason: null }], usage: null, ...rest })}\n\n`;
const plain = Array.from({ length: 20 }, (_, index) => chunk(`word ${index}`));
const [before = "", behind = ""] = chunk("|").split("|");
const finish = { choices: [{ index: 0, delta: { content: "" }, finish_reason: "stop" }] };
const usage = { prompt_tokens: 3, completion_tokens: 4 };

/** What may come among them. */
const others: Readonly<Record<string, string>> = {
  usage: chunk("a", { usage }),
  "the finish": chunk("", finish),
  "the finish with usage": chunk("", { ...finish, usage }),
  "another choice": chunk("a", { choices: [{ index: 1, delta: { content: "b" }, finish_reason: null }] }),
  "a choice without an index": chunk("a", { choices: [{ delta: { content: "b" }, finish_reason: null }] }),
  "the finish of another choice": chunk("", { choices: [{ index: 1, delta: {}, finish_reason: "stop" }] }),
  "a finish_reason that is none": chunk("a", { choices: [{ ...finish.choices[0], finish_reason: "" }] }),
  "usage in a choice": chunk("a", { choices: [{ index: 0, delta: { content: "a" }, finish_reason: null, usage }] }),
  "an empty event": "data: {}\n\n",
  "an error": `data: {"error":{"message":"no","code":"x"}}\n\n`,
  "an error in the same frame": `${before}a","error":{"message":"no"},"b":"${behind}`,
  "a finish in the same frame": `${before}a"},"finish_reason":"stop"},{"delta":{"content":"${behind}`,
  "two events at once": chunk("a") + chunk("", { ...finish, usage }),
  "[DONE]": "data: [DONE]\n\n",
  "a comment": ": keep-alive\n\n",
  "a named error": `event: error\n${chunk("a")}`,
  "an event over several lines": chunk("a").replace(/\n\n$/, "\ndata: \n\n"),
  "another framing": chunk("a").replaceAll("\n", "\r\n"),
  "a large text": chunk("x".repeat(5000)),
  escapes: chunk('"usage":{"prompt_tokens":1} \\ \u0001 \n'),
};

describe("among events without facts", () => {
  it.each(Object.entries(others))("%s is seen", (_, other) => {
    const unfinished = inReads([...plain, other, ...plain]);
    expect(read(unfinished, false)).toEqual(read(unfinished, true));
    const reads = [...unfinished, ...inReads([chunk("", { ...finish, usage }), "data: [DONE]\n\n"])];
    expect(read(reads, false)).toEqual(read(reads, true));
  });

  it("all of it is seen, wherever the network cuts", () => {
    const event = fc.oneof(
      fc.string({ unit: "grapheme" }).map((text) => chunk(text)),
      fc.constantFrom(...Object.values(others)),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(event, fc.nat(400)), { maxLength: 12 }), (cutEvents) => {
        const reads = inReads([...plain, ...cutEvents.map(([text]) => text)]);
        const expected = read(reads, true);
        expect(read(reads, false)).toEqual(expected);
        const cut = cutEvents.flatMap(([text, at]) => {
          const bytes = Buffer.from(text);
          return [bytes.subarray(0, at), bytes.subarray(at)];
        });
        expect(read([...inReads(plain), ...cut], false)).toEqual(expected);
      }),
      { numRuns: 300 },
    );
  });
});
