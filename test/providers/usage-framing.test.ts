import { describe, expect, it } from "vitest";
import { createReader } from "../../src/providers/stream/response-body.ts";
import type { ResponseSink } from "../../src/providers/stream/response-reader.ts";
import { testProvider } from "../support/provider.ts";

const usage = { prompt_tokens: 12, completion_tokens: 34, prompt_cache_hit_tokens: 5 };
const expected = { input: 12, output: 34, cached: 5, reasoning: 0 };

const chunk = (content: string, rest: object = {}): string =>
  JSON.stringify({ choices: [{ index: 0, delta: { content }, finish_reason: null }], usage: null, ...rest });
const last = { choices: [{ index: 0, delta: {}, finish_reason: "stop" }] };
/** Text that looks like what a reader searches for, and characters of two, three and four bytes. */
const tricky = chunk('say "usage":{"prompt_tokens":1} — 你好 é 🎉 data: [DONE]');

/** What a provider may send that has used exactly `usage`. */
const answers: Readonly<Record<string, readonly string[]>> = {
  "on the finish chunk": [tricky, chunk("a"), chunk("", { ...last, usage }), "[DONE]"],
  "after the finish chunk": [tricky, chunk("", last), JSON.stringify({ choices: [], usage }), "[DONE]"],
  "on each chunk, cumulative": [
    chunk("a", { usage: { prompt_tokens: 12, completion_tokens: 0 } }),
    tricky,
    chunk("b", { usage: { prompt_tokens: 12, completion_tokens: 33 } }),
    chunk("", { ...last, usage }),
    "[DONE]",
  ],
  "without [DONE]": [tricky, chunk("", { ...last, usage })],
};

const framings: Readonly<Record<string, (data: string) => string>> = {
  LF: (data) => `data: ${data}\n\n`,
  CRLF: (data) => `data: ${data}\r\n\r\n`,
  "no space": (data) => `data:${data}\n\n`,
  comments: (data) => `: keep-alive\n\ndata: ${data}\n: usage\n\n`,
};

/** Reads an answer that arrives in these pieces. */
function read(pieces: readonly Buffer[]) {
  let text = "";
  let events = 0;
  const sink: ResponseSink = {
    onEvent(event, start, end) {
      text += event.toString("utf8", start, end);
      events++;
    },
    onBatch: () => undefined,
    onEnd: () => undefined,
  };
  const reader = createReader("chat", false, testProvider("any"), sink);
  // A copy for each piece: what the network brings is not one buffer.
  for (const piece of pieces) reader.push(Buffer.from(piece));
  return { fault: reader.end(), usage: reader.usage, events, text };
}

describe.each(Object.entries(answers))("usage %s", (_where, events) => {
  it.each(Object.entries(framings))("is read exactly wherever the network cuts it: %s", (_name, frame) => {
    const bytes = Buffer.from(events.map(frame).join(""));
    const whole = read([bytes]);
    expect(whole).toMatchObject({
      fault: null,
      usage: expected,
      events: events.filter((each) => each !== "[DONE]").length,
    });
    expect(read(Array.from(bytes, (_byte, at) => bytes.subarray(at, at + 1)))).toEqual(whole);
    for (let cut = 1; cut < bytes.length; cut++) {
      const { fault, usage: got, text } = read([bytes.subarray(0, cut), bytes.subarray(cut)]);
      if (fault !== null || text !== whole.text)
        expect({ cut, fault, text }).toEqual({ cut, fault: null, text: whole.text });
      expect(got, `cut at byte ${cut}`).toEqual(expected);
    }
  });
});

describe("usage that is no usage", () => {
  it.each([
    ["null", null],
    ["absent", undefined],
    ["half", { prompt_tokens: 3 }],
    ["negative", { prompt_tokens: 3, completion_tokens: -4 }],
    ["fractional", { prompt_tokens: 3.5, completion_tokens: 4 }],
    ["text", { prompt_tokens: "3", completion_tokens: "4" }],
    ["absurd", { prompt_tokens: 1e300, completion_tokens: 4 }],
    ["a list", [3, 4]],
  ])("counts as missing: %s", (_, bad) => {
    const bytes = Buffer.from([chunk("a"), chunk("", { ...last, usage: bad })].map(framings.LF ?? String).join(""));
    expect(read([bytes])).toMatchObject({ fault: null, usage: null });
  });

  it("doesn't replace what was reported before it", () => {
    const events = [chunk("a", { usage }), chunk("", { ...last, usage: null })];
    expect(read([Buffer.from(events.map(framings.LF ?? String).join(""))]).usage).toEqual(expected);
  });

  it("is zero where it says zero", () => {
    const zero = { prompt_tokens: 0, completion_tokens: 0 };
    const events = [chunk("a", { usage }), chunk("", { ...last, usage: zero })];
    const { usage: got } = read([Buffer.from(events.map(framings.LF ?? String).join(""))]);
    expect(got).toEqual({ input: 0, output: 0, cached: 0, reasoning: 0 });
  });
});
