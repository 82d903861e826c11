import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { event, readResponse } from "../support/read-response.ts";
import { messageDelta, messageEvent, messageStart, messageStop, messageText } from "../support/message-events.ts";

const apis = ["chat", "completions"] as const;
type Api = (typeof apis)[number];

/** A chunk of one choice, as an API has it. */
function choice(api: Api, index: unknown, text: string, finish_reason: unknown, rest: object = {}): object {
  return { index, ...(api === "chat" ? { delta: { content: text } } : { text }), finish_reason, ...rest };
}
const chunk = (choices: readonly object[], rest: object = {}): string => event({ id: "c", choices, ...rest });
const text = (api: Api, content: string, index = 0): string => chunk([choice(api, index, content, null)]);
const finish = (api: Api, index = 0, reason: unknown = "stop"): string => chunk([choice(api, index, "", reason)]);
const usage = { prompt_tokens: 5, completion_tokens: 1 };
const done = "data: [DONE]\n\n";
/** Enough that a reader has found out what they have in common. */
const words = (api: Api): string[] => Array.from({ length: 8 }, (_, at) => text(api, `word ${at}`));

const modes = apis.flatMap((api) => [true, false].map((collects) => ({ api, collects })));

describe.each(modes)("A1: of $api, collected: $collects, a finish_reason", ({ api, collects }) => {
  const values = ["", null, undefined, false, true, 0, 7, [], ["stop"], {}, { reason: "stop" }];

  it.each(values)("%j ends nothing, wherever it stands", (value) => {
    const said = chunk([choice(api, 0, "a", value)]);
    for (const end of [[], [done]]) {
      expect(readResponse(api, [...words(api), said, said, ...end], { collects }).fault).toBe("truncated");
    }
    const whole = [said, ...words(api), said, finish(api), done];
    expect(readResponse(api, whole, { collects })).toMatchObject({ fault: null, seen: { length: 11 } });
    // It takes nothing back either.
    expect(readResponse(api, [...words(api), finish(api), said], { collects }).fault).toBeNull();
  });

  it("counts as it was given last", () => {
    const reasons = (...given: readonly unknown[]) =>
      readResponse(api, [text(api, "a"), ...given.map((reason) => finish(api, 0, reason)), done], { collects }).fault;
    expect(reasons("stop", "network_error")).toBe("overloaded");
    expect(reasons("network_error", "stop")).toBeNull();
    expect(reasons("network_error", "")).toBe("overloaded");
  });
});

describe.each(modes)("A2: of $api, collected: $collects, an answer of several choices", ({ api, collects }) => {
  it("is complete once each choice that was seen has its own finish_reason", () => {
    const half = [text(api, "a"), text(api, "b", 1), ...words(api), finish(api)];
    expect(readResponse(api, half, { collects, choices: 2 }).fault).toBe("truncated");
    expect(readResponse(api, [...half, done], { collects, choices: 2 }).fault).toBe("truncated");
    expect(readResponse(api, [...half, finish(api, 1)], { collects, choices: 2 }).fault).toBeNull();
  });

  it.each(["insufficient_system_resource", "network_error", "error", "abort"])("is broken by one %s", (reason) => {
    const whole = [text(api, "a"), text(api, "b", 1), finish(api, 1, reason), finish(api), done];
    expect(readResponse(api, whole, { collects, choices: 2 }).fault).toBe("overloaded");
  });

  it("waits in silence for the choices that were asked for", () => {
    const first = [text(api, "a"), finish(api)];
    expect(readResponse(api, first, { collects, choices: 2 })).toMatchObject({ graceMs: null, fault: null });
    expect(readResponse(api, [...first, finish(api, 1)], { collects, choices: 2 }).graceMs).toBe(2000);
  });

  it("is judged by every choice, whatever their number, order and framing", () => {
    const step = fc.record({
      index: fc.nat(5),
      content: fc.string({ maxLength: 5 }),
      reason: fc.constantFrom(null, null, null, "", "stop", "length", "network_error"),
      framing: fc.constantFrom("index", "spaces", "position", "several"),
    });
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 25 }), fc.boolean(), (steps, saysDone) => {
        const known = new Map<number, string>();
        const reads = steps.map(({ index, content, reason, framing }) => {
          const own = choice(api, index, content, reason);
          const others = framing === "several" ? [choice(api, index + 1, "x", null)] : [];
          const at = framing === "position" ? 0 : index;
          known.set(at, reason === null || reason === "" ? (known.get(at) ?? "") : reason);
          if (others.length > 0) known.set(index + 1, known.get(index + 1) ?? "");
          if (framing === "position") return chunk([{ ...own, index: undefined }]);
          const json = chunk([own, ...others]);
          return framing === "spaces" ? json.replaceAll('"index":', '"index" : ') : json;
        });
        const reasons = [...known.values()];
        const broken = reasons.includes("network_error") ? "overloaded" : null;
        const expected = broken ?? (reasons.includes("") ? "truncated" : null);
        expect(readResponse(api, [...reads, ...(saysDone ? [done] : [])], { collects }).fault).toBe(expected);
      }),
      { numRuns: 150 },
    );
  });

  it("is never complete with more choices than can be told apart", () => {
    const many = Array.from({ length: 10_001 }, (_, index) => choice(api, index, "", "stop"));
    expect(readResponse(api, [chunk(many), done], { collects }).fault).toBe("truncated");
    expect(readResponse(api, [chunk(many.slice(1)), done], { collects }).fault).toBeNull();
  });
});

describe.each(modes)("A3 and A4: of $api, collected: $collects,", ({ api, collects }) => {
  const asides = ["data:\n\n", "data: \n\n", "data\n\n", "data:\ndata: \n\n", "data: {}\n\n", "data: null\n\n"];
  asides.push("data: ping\n\n", "data: : keep-alive\n\n", 'data: "heartbeat"\n\n', "data: []\n\n", ": comment\n\n");
  asides.push(
    "event: ping\ndata:\n\n",
    'data: {"type":"ping"}\n\n',
    'event: keep-alive\ndata: {"type":"keepalive"}\n\n',
    'event: ping\ndata: {"ts":1764211200}\n\n',
    "event: Heartbeat\ndata: 2026-11-27T03:00:00Z\n\n",
  );

  it.each(asides)("the event %j is a comment, before, between and behind the others", (aside) => {
    const events = [text(api, "a"), ...words(api), finish(api), chunk([], { usage })];
    const plain = readResponse(api, [...events, done], { collects });
    expect(plain).toMatchObject({ fault: null, usage: { input: 5, output: 1 } });
    for (let at = 0; at <= events.length; at++) {
      const reads = [...events.slice(0, at), aside, ...events.slice(at), done];
      expect(readResponse(api, reads, { collects })).toEqual(plain);
    }
  });

  const farewells = [
    "data: [DONE] \n\n",
    "data:  [DONE]\n\n",
    "data: [DONE]bye\n\n",
    "data: DONE\n\n",
    "data: bye\n\n",
  ];
  farewells.push("data: [1]\n\n", "data: 7\n\n", 'data: {"half\n\n', "event: error\ndata: closing\n\n");
  farewells.push(
    'event: error\ndata: {"error":{"message":"closing"}}\n\n',
    'data: {"error":{"message":"closing"}}\n\n',
  );

  it.each(farewells)("the event %j is a farewell behind the end, and breaks an answer before it", (farewell) => {
    const whole = [text(api, "a"), finish(api)];
    const read = readResponse(api, [...whole, farewell, chunk([], { usage })], { collects });
    expect(read).toMatchObject({ fault: null, seen: whole, usage: null });
    expect(readResponse(api, [text(api, "a"), farewell, finish(api)], { collects }).fault).not.toBeNull();
  });

  it("the last event needs no blank line, and half an event is none", () => {
    const last = chunk([choice(api, 0, "", "stop")], { usage });
    for (const cut of ["\n\n", "\n", ""]) {
      const read = readResponse(api, [text(api, "a"), last.trimEnd() + cut], { collects });
      expect(read).toMatchObject({ fault: null, usage: { output: 1 }, seen: { 1: last } });
    }
    for (let at = 1; at < last.trimEnd().length; at++) {
      const read = readResponse(api, [text(api, "a"), last.slice(0, at)], { collects });
      expect(read).toMatchObject({ fault: "truncated", seen: { length: 1 } });
    }
  });

  it("silence ends an answer only where nothing is missing, later where usage may come", () => {
    const graceOf = (...reads: readonly string[]) => readResponse(api, reads, { collects }).graceMs;
    expect(graceOf(text(api, "a"))).toBeNull();
    expect(graceOf(text(api, "a"), chunk([], { usage }))).toBeNull();
    expect(graceOf(text(api, "a"), finish(api))).toBe(2000);
    expect(graceOf(text(api, "a"), finish(api), chunk([], { usage }))).toBe(250);
    expect(graceOf(text(api, "a"), finish(api), text(api, "b", 1))).toBeNull();
  });
});

describe.each([true, false])("A3: a message, collected: %s,", (collects) => {
  const read = (...reads: readonly string[]) => readResponse("messages", reads, { collects });
  const begun = [messageStart, ...messageText];

  it.each([
    ["message_stop", [messageStop]],
    ["nothing", []],
    ["[DONE]", ["data: [DONE]\n\n"]],
    ["message_stop without its blank line", [messageStop.trimEnd()]],
    ["half of message_stop", [messageStop.slice(0, 30)]],
    ["an error of the connection", [messageEvent("error", { error: { type: "late" } })]],
  ])("is complete with its stop_reason and %s", (_, end) => {
    expect(read(...begun, messageDelta(), ...end)).toMatchObject({ fault: null, graceMs: expect.any(Number) });
    expect(read(...begun, ...end).fault).not.toBeNull();
  });

  it.each(["", null, undefined, 7, false])("is not complete with the stop_reason %j", (reason) => {
    const delta = messageEvent("message_delta", { delta: { stop_reason: reason }, usage: { output_tokens: 3 } });
    expect(read(...begun, delta, messageStop).fault).toBe("truncated");
  });

  it("M8: tells its reasoning in thinking_tokens", () => {
    const reported = { output_tokens: 30, output_tokens_details: { thinking_tokens: 21 } };
    const delta = messageEvent("message_delta", { delta: { stop_reason: "end_turn" }, usage: reported });
    expect(read(...begun, delta, messageStop).usage).toMatchObject({ output: 30, reasoning: 21 });
  });
});

describe.each(modes)("M8: of $api, collected: $collects, usage is found", ({ api, collects }) => {
  const moonshot = { usage: { prompt_tokens: 10, completion_tokens: 8, total_tokens: 18 } };
  const found = { input: 10, output: 8 };

  it.each([
    ["with a choice", chunk([choice(api, 0, "", "stop", moonshot)])],
    ["with a choice, beside null", chunk([choice(api, 0, "", "stop", moonshot)], { usage: null })],
    ["in a delta", chunk([{ index: 0, delta: moonshot, text: "", finish_reason: "stop" }])],
    ["in an object of its own", chunk([choice(api, 0, "", "stop")], { x_groq: { id: "r", ...moonshot } })],
    ["under Anthropic's names", chunk([choice(api, 0, "", "stop")], { usage: { input_tokens: 10, output_tokens: 8 } })],
  ])("%s", (_, last) => {
    expect(readResponse(api, [...words(api), last, done], { collects }).usage).toMatchObject(found);
  });

  it("of each choice, and adds up", () => {
    const last = (index: number) => chunk([choice(api, index, "", "stop", moonshot)]);
    const reads = [text(api, "a"), text(api, "b", 1), last(0), last(1), done];
    expect(readResponse(api, reads, { collects, choices: 2 }).usage).toMatchObject({ input: 10, output: 16 });
  });

  it("as it was reported last, wherever that was, and whatever comes behind it", () => {
    const last = chunk([choice(api, 0, "", "stop", moonshot)]);
    const reads = [...words(api), last, chunk([], { usage }), chunk([choice(api, 0, "", "")]), done];
    expect(readResponse(api, reads, { collects }).usage).toMatchObject({ input: 5, output: 1 });
  });

  it("where it is usual before anywhere else", () => {
    const last = chunk([choice(api, 0, "", "stop", moonshot)], { usage });
    expect(readResponse(api, [text(api, "a"), last, done], { collects }).usage).toMatchObject({ input: 5, output: 1 });
  });
});

describe("A9: a chunk with usage and no choices", () => {
  const roles = (rest: object): string[] => {
    const events: string[] = [];
    const answer = [text("chat", "a"), finish("chat"), chunk([], { usage, ...rest }), done];
    readResponse("chat", answer, {}, (role) => events.push(role));
    return events;
  };

  it("is the proxy's own where it says no more, and else part of the answer", () => {
    expect(roles({ object: "chat.completion.chunk", service_tier: "x", citations: null })).toEqual([
      "part",
      "finish",
      "usage",
    ]);
    expect(roles({ citations: ["https://a.example"] })).toEqual(["part", "finish", "part"]);
  });
});
