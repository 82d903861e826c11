import { describe, expect, it } from "vitest";
import { createReader } from "../../src/providers/stream/response-body.ts";
import {
  messageDelta,
  messageEvent,
  messageStart,
  messageStop,
  messageText,
  messageUsage,
} from "../support/message-events.ts";
import { testProvider } from "../support/provider.ts";

const tricky = messageEvent("content_block_delta", {
  index: 0,
  delta: { type: "text_delta", text: 'data: {"type":"message_stop"} "usage":{"output_tokens":9} é 你 🎉' },
});
const whole = [messageStart, ...messageText, tricky, messageDelta(), messageStop];

const framings: Readonly<Record<string, (event: string) => string>> = {
  LF: (event) => event,
  CRLF: (event) => event.replaceAll("\n", "\r\n"),
  "no space": (event) => event.replaceAll(": ", ":"),
  "no names": (event) => event.replace(/^event: .*\n/, ""),
  comments: (event) => `: keep-alive\n\n${event}`,
};

/** Reads an answer that arrives in these pieces. */
function read(pieces: readonly Buffer[], collects = false) {
  const seen: string[] = [];
  const provider = testProvider("any");
  const reader = createReader("messages", collects, provider, {
    onEvent: (event, start, end) => seen.push(event.toString("utf8", start, end)),
    onBatch: () => undefined,
    onEnd: () => undefined,
  });
  // A copy for each piece: what the network brings is not one buffer.
  for (const piece of pieces) reader.push(Buffer.from(piece));
  const fault = reader.end();
  return { fault: fault?.facts.kind ?? null, usage: reader.usage, prompt: reader.prompt, seen };
}

describe.each([true, false])("an answer in Anthropic's shape, collected: %s", (collects) => {
  it.each(Object.entries(framings))("is read exactly wherever the network cuts it: %s", (_, frame) => {
    const bytes = Buffer.from(whole.map(frame).join(""));
    const shown = whole.filter((event) => !event.includes('"ping"') && event !== messageStop);
    const expected = read([bytes], collects);
    expect(expected).toEqual({
      fault: null,
      usage: { ...messageUsage, reasoning: 0 },
      prompt: { input: 20, cached: 5 },
      seen: shown.map(frame).map((event) => event.replace(/^: keep-alive\n\n/, "")),
    });
    expect(
      read(
        Array.from(bytes, (_byte, at) => bytes.subarray(at, at + 1)),
        collects,
      ),
    ).toEqual(expected);
    for (let cut = 1; cut < bytes.length; cut += 7) {
      expect(read([bytes.subarray(0, cut), bytes.subarray(cut)], collects)).toEqual(expected);
    }
  });

  it("is complete with nothing less than its stop_reason", () => {
    const read1 = (events: readonly string[]) => read([Buffer.from(events.join(""))], collects).fault;
    for (let count = 0; count < whole.length - 1; count++) expect(read1(whole.slice(0, count))).toBe("truncated");
    expect(read1([messageStart, messageStop])).toBe("truncated");
    expect(read1([messageStart, messageDelta(null, null), messageStop])).toBe("truncated");
    expect(read1([...whole, messageEvent("error", { error: { type: "late" } })])).toBeNull();
  });

  it.each([
    ["overloaded_error", "overloaded"],
    ["rate_limit_error", "rate_limited"],
    ["invalid_request_error", "bad_request"],
    ["authentication_error", "key_refused"],
    ["api_error", "server_error"],
  ])("fails with %s as %s, named or not", (type, kind) => {
    const event = messageEvent("error", { error: { type, message: "no" } });
    for (const error of [event, event.replace(/^event: error\n/, "")]) {
      expect(read([Buffer.from(messageStart + error + messageStop)], collects).fault).toBe(kind);
    }
  });

  it.each([
    { type: "error", message: "slow down", code: "rate_limit_error" },
    { object: "error", message: "slow down", code: 429 },
    { code: "rate_limit_error", message: "slow down" },
    { status: 429, detail: "slow down" },
  ])("fails with %j in the middle, an error as a whole", (error) => {
    const text = messageText.join("");
    const bytes = Buffer.from(`${messageStart}${text}data: ${JSON.stringify(error)}\n\n${messageStop}`);
    expect(read([bytes], collects).fault).toBe("rate_limited");
  });

  it("fails where an event is no JSON object", () => {
    for (const data of ["[1]", "1", "{oops"]) {
      expect(read([Buffer.from(`${messageStart}data: ${data}\n\n`)], collects).fault).toBe("invalid_response");
    }
  });
});
