import { fc } from "../support/fast-check.ts";
import { AssistantStream } from "openai/lib/AssistantStream";
import { describe, expect, it, test } from "vitest";
import { CompletionCollector } from "../../src/gateway/formats/completions.ts";
import { UnmergeableError } from "../../src/gateway/formats/merge-fields.ts";
import { chatBody, estimatedPrompt, nothing, priced, startBilledProxy, weight } from "../support/billed-proxy.ts";
import { chunk, collect, messageOf } from "../support/completion-chunks.ts";
import { eventually } from "../support/eventually.ts";

const text = (value: string) => ({ type: "text", text: value });
const thinking = (value: string) => ({ type: "thinking", thinking: [text(value)] });

describe("C1: content that changes its type", () => {
  test.each([
    ["a list, then texts", [[thinking("hm")], [text("4")], "2", "!"], [thinking("hm"), text("42!")]],
    ["a text, then a list", ["a", "b", [text("c")], [thinking("d")]], [text("abc"), thinking("d")]],
    ["a text, then another part", ["a", [thinking("b")], "c"], [text("a"), thinking("b"), text("c")]],
    ["parts of one type", [[thinking("a")], [thinking("b")], [text("c")]], [thinking("ab"), text("c")]],
    ["nothing, then a list", ["", null, [text("a")]], [text("a")]],
    ["a list, then nothing", [[text("a")], "", null, []], [text("a")]],
    ["an empty list, then a text", [[], "a"], "a"],
    ["texts in lists", [["a"], "b", ["c"]], ["a", "b", "c"]],
    [
      "parts that are no text",
      [[{ type: "image", url: "u" }], [{ type: "image", url: "v" }], "a"],
      [{ type: "image", url: "u" }, { type: "image", url: "v" }, text("a")],
    ],
    [
      "text parts with something of their own",
      [[{ ...text("a"), start: 1 }], [{ ...text("b"), start: 2 }]],
      [
        { ...text("a"), start: 1 },
        { ...text("b"), start: 2 },
      ],
    ],
  ])("%s", (_name, pieces, expected) => {
    for (const field of ["content", "reasoning_content", "refusal", "something_new"]) {
      expect(messageOf(...pieces.map((piece) => ({ [field]: piece })))[field]).toEqual(expected);
    }
  });

  it("loses no text, whatever the order of texts and lists", () => {
    const word = fc.string({ minLength: 1, maxLength: 4 });
    const piece = fc.oneof(word, fc.array(fc.oneof(word.map(text), word.map(thinking)), { maxLength: 3 }));
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const { content } = messageOf(...pieces.map((content) => ({ content })));
        expect(textsIn(content)).toBe(textsIn(pieces));
      }),
    );
  });

  test.each([
    ["a text, then a number", "a", 1],
    ["a text, then an object", "a", { b: 1 }],
    ["a text, then numbers", "a", [1]],
    ["a number, then a text", 1, "a"],
    ["an object, then a text", { a: 1 }, "b"],
    ["an object, then a list", { a: 1 }, [1]],
    ["a list, then an object", [1], { a: 1 }],
    ["numbers, then a text", [1], "a"],
    ["true, then a number", true, 1],
  ])("refuses %s", (_name, first, then) => {
    for (const field of ["content", "something_new"]) {
      expect(() => messageOf({ [field]: first }, { [field]: then })).toThrow(UnmergeableError);
      expect(() => messageOf({ o: { [field]: first } }, { o: { [field]: then } })).toThrow(UnmergeableError);
    }
    expect(() => completionOf(first, then)).toThrow(UnmergeableError);
  });

  it("says of what can't be merged where it was, and nothing of its text", () => {
    expect(() => messageOf({ content: "secret" }, { content: 1 })).toThrow("content is a text, then a number");
  });

  it("takes a message that came whole, where no delta said anything", () => {
    const message = { role: "assistant", content: "whole", annotations: [1] };
    const whole = chunk(undefined, { message, finish_reason: "stop" });
    expect(collect([chunk({ role: "assistant", content: "" }), whole]).choices[0]?.message).toEqual(message);
    expect(collect([chunk({ content: "a" }), whole]).choices[0]?.message.content).toBe("a");
  });

  it("is 502 where it can't be merged: nothing is billed, and it is asked once", async () => {
    const it = await startBilledProxy({ kind: "openai", attempts: 3 });
    const answer = it.collect();
    const call = await it.upstream.next();
    await call.delta("a");
    await call.event(chunk({ content: 5 }));
    expect((await answer).status).toBe(502);
    await call.closed;
    expect(await it.used()).toEqual(nothing);
    expect(it.upstream.received).toBe(1);
    expect(it.proxy.logLines.some((line) => line.includes("content is a text, then a number"))).toBe(true);
  });
});

describe("C3: lists of objects with an index", () => {
  test.each(["reasoning_details", "content", "something_new"])("are merged by it in %s", (field) => {
    const piece = (fields: object) => ({ [field]: [{ index: 0, type: "t", ...fields }] });
    expect(messageOf(piece({ text: "a" }), piece({ text: "b" }), piece({ signature: "s" }))[field]).toEqual([
      { index: 0, type: "t", text: "ab", signature: "s" },
    ]);
    expect(messageOf({ o: piece({ text: "a" }) }, { o: piece({ text: "b" }) }).o).toEqual({
      [field]: [{ index: 0, type: "t", text: "ab" }],
    });
  });

  test.each([
    [
      "another type is another entry",
      [
        { index: 0, type: "t", text: "a" },
        { index: 0, type: "u", data: "b" },
        { index: 0, type: "t", text: "c" },
      ],
      [
        { index: 0, type: "t", text: "ac" },
        { index: 0, type: "u", data: "b" },
      ],
    ],
    [
      "a type that is not said again is the same",
      [
        { index: 0, type: "t", text: "a" },
        { index: 0, text: "b" },
        { index: 0, type: null, text: "c" },
      ],
      [{ index: 0, type: "t", text: "abc" }],
    ],
    [
      "another id is another entry",
      [
        { index: 0, id: "x", text: "a" },
        { index: 0, id: "y", text: "b" },
        { index: 0, id: "x", text: "c" },
      ],
      [
        { index: 0, id: "x", text: "ac" },
        { index: 0, id: "y", text: "b" },
      ],
    ],
    [
      "entries stand in the order of their indices",
      [
        { index: 1, text: "b" },
        { index: 0, text: "a" },
        { index: 1, text: "B" },
      ],
      [
        { index: 0, text: "a" },
        { index: 1, text: "bB" },
      ],
    ],
    [
      "what is said again of an entry is not joined",
      [
        { index: 0, type: "t", format: "f-v1", text: "a" },
        { index: 0, type: "t", format: "f-v1", text: "b" },
      ],
      [{ index: 0, type: "t", format: "f-v1", text: "ab" }],
    ],
  ])("%s", (_name, entries, expected) => {
    expect(messageOf(...entries.map((each) => ({ details: [each] }))).details).toEqual(expected);
    expect(messageOf({ details: entries }).details).toEqual(expected);
  });

  it("are what the OpenAI SDK's accumulator makes of them", () => {
    const entry = fc.record({ index: fc.nat(2), text: fc.string(), n: fc.constant(null) });
    fc.assert(
      fc.property(fc.array(entry, { minLength: 1 }), (entries) => {
        const dense = [0, 1, 2].map((index) => ({ index, text: ".", n: null }));
        const deltas = [...dense, ...entries].map((each) => ({ list: [each] }));
        let theirs: Record<string, unknown> = { list: [{ index: 0, text: "", n: null }] };
        for (const delta of deltas) theirs = AssistantStream.accumulateDelta(theirs, structuredClone(delta));
        expect(messageOf(...deltas).list).toEqual(theirs.list);
      }),
    );
  });
});

describe("C5: the size of one JSON", () => {
  /** Writes that fail at once would leave no turn in which the end of the connection is noticed. */
  const endOfTurn = () => new Promise(setImmediate);

  it("is bounded in bytes: then the provider is stopped, the client gets 502, nothing is billed", async () => {
    const it = await startBilledProxy({ config: "[chat]\ncollect_limit_bytes = 65536" });
    const answer = it.collect();
    const call = await it.upstream.next();
    let sent = 0;
    while (!call.left) {
      sent++;
      // A write that the closing of the connection overtakes never calls back.
      await Promise.race([call.delta("x".repeat(1000)).catch(endOfTurn), call.closed]);
    }
    expect(sent).toBeGreaterThan(50);
    const refused = await answer;
    expect(refused.status).toBe(502);
    expect(await refused.json()).toMatchObject({ error: { code: "upstream_invalid_response" } });
    await eventually(async () => {
      expect(await it.used()).toEqual(nothing);
    });
  });

  it.each([
    ["its prompt, where no response without end is free", "free_disconnects_per_hour = 0", {}, 0],
    ["what is shown of it", "free_disconnects_per_hour = 10", { "x-partial": "true" }, 1],
  ])("is no reason to be charged nothing for ever: %s", async (_what, abort, headers, shown) => {
    const it = await startBilledProxy({ config: `[chat]\ncollect_limit_bytes = 65536\n[abort]\n${abort}` });
    const answer = it.ask("/chat/completions", chatBody(false), headers);
    const call = await it.upstream.next();
    while (!call.left) await Promise.race([call.delta("x".repeat(1000)).catch(endOfTurn), call.closed]);
    await (await answer).rest();
    await eventually(async () => {
      const [requests, tokens = 0] = await it.used();
      expect(requests).toBe(weight);
      if (shown === 0) expect(tokens).toBe(estimatedPrompt(false));
      else expect(tokens).toBeGreaterThan(10_000);
    });
  });

  it("lets an answer through that fits, and streams of any size", async () => {
    const it = await startBilledProxy({ config: "[chat]\ncollect_limit_bytes = 4096" });
    const small = it.collect();
    const first = await it.upstream.next();
    await first.delta("x".repeat(1000));
    await first.finish();
    expect((await small).status).toBe(200);
    const stream = await (async () => {
      const opening = it.open();
      const call = await it.upstream.next();
      await call.delta("x".repeat(10_000));
      await call.finish();
      return opening;
    })();
    expect((await stream.rest()).at(-1)?.data).toBe("[DONE]");
    expect(await it.used()).toEqual(priced(10, 14).map((value, at) => (at === 0 ? value * 2 : value)));
  });

  it("bounds the values of an answer, and their depth", () => {
    const many = { list: Array<number>(300_000).fill(1) };
    expect(() => messageOf(many, many, many, many)).toThrow(UnmergeableError);
    const deep = JSON.parse(`${"[".repeat(5000)}${"]".repeat(5000)}`) as unknown;
    expect(() => messageOf({ deep })).toThrow(UnmergeableError);
    expect(() => collect([{ deep, choices: [] }])).toThrow(UnmergeableError);
    const choices = Array.from({ length: 100_000 }, (_, index) => ({ index }));
    expect(() => collect([{ choices }])).toThrow(UnmergeableError);
  });

  it("keeps logprobs as text, and gives them back unchanged", () => {
    const token = fc.record({ token: fc.string(), logprob: fc.double({ noNaN: true, noDefaultInfinity: true }) });
    const lists = fc.array(fc.record({ content: fc.array(token), refusal: fc.constantFrom(null, []) }));
    fc.assert(
      fc.property(lists, (logprobs) => {
        const [choice] = collect(logprobs.map((each) => chunk({}, { logprobs: each }))).choices;
        if (choice === undefined) return;
        const content = JSON.parse(JSON.stringify(logprobs.flatMap((each) => each.content)));
        expect(choice.logprobs).toMatchObject({ content });
      }),
    );
  });

  test.each([
    ["a list, then a text", [1], "a"],
    ["a text, then a list", "a", [1]],
    ["a list, then a number", [1], 1],
  ])("refuses logprobs that are %s", (_name, first, then) => {
    const chunks = [first, then].map((content) => chunk({}, { logprobs: { content } }));
    expect(() => collect(chunks)).toThrow(UnmergeableError);
  });
});

/** All that is said in texts and parts, in its order. */
function textsIn(value: unknown): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map(textsIn).join("");
  if (typeof value !== "object" || value === null) return "";
  return "text" in value ? textsIn(value.text) : "thinking" in value ? textsIn(value.thinking) : "";
}

function completionOf(...texts: readonly unknown[]): unknown {
  const collector = new CompletionCollector();
  for (const each of texts) collector.add({ choices: [{ index: 0, text: each }] });
  return JSON.parse(collector.body());
}
