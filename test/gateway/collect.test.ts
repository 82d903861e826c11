import { anyText, fc } from "../support/fast-check.ts";
import { ChatCompletionStream } from "openai/lib/ChatCompletionStream";
import { describe, expect, it } from "vitest";
import { chunk, collect, head, messageOf, toolCall } from "../support/completion-chunks.ts";

const reasoningAndTools = [
  chunk({ role: "assistant", content: null, reasoning_content: "" }),
  chunk({ content: null, reasoning_content: "The user " }),
  chunk({ content: null, reasoning_content: "asks." }),
  chunk({ content: "Let me ", reasoning_content: null }),
  chunk({ content: "look." }),
  chunk(toolCall(0, { id: "call_a", type: "function", function: { name: "weather", arguments: "" } })),
  chunk(toolCall(0, { function: { arguments: '{"city":' } })),
  chunk(toolCall(1, { id: "call_b", type: "function", function: { name: "time", arguments: "{" } })),
  chunk(toolCall(0, { function: { arguments: '"北京"}' } })),
  chunk(toolCall(1, { function: { arguments: "}" } })),
  {
    ...chunk({ content: "", reasoning_content: null }, { finish_reason: "tool_calls" }),
    usage: { prompt_tokens: 6, completion_tokens: 12, total_tokens: 18 },
  },
];

describe("Collector", () => {
  it("collects text, reasoning and tool calls into the answer that was streamed", () => {
    expect(collect(reasoningAndTools)).toEqual({
      ...head,
      object: "chat.completion",
      choices: [
        {
          index: 0,
          message: {
            role: "assistant",
            content: "Let me look.",
            reasoning_content: "The user asks.",
            tool_calls: [
              { id: "call_a", type: "function", function: { name: "weather", arguments: '{"city":"北京"}' } },
              { id: "call_b", type: "function", function: { name: "time", arguments: "{}" } },
            ],
          },
          logprobs: null,
          finish_reason: "tool_calls",
        },
      ],
      usage: { prompt_tokens: 6, completion_tokens: 12, total_tokens: 18 },
    });
  });

  it("gives what the OpenAI SDK accumulates from the same stream", async () => {
    const lines = reasoningAndTools.map((each) => `${JSON.stringify(each)}\n`).join("");
    const body = new Blob([lines]).stream();
    const theirs = await ChatCompletionStream.fromReadableStream(body).finalChatCompletion();
    const ours = collect(reasoningAndTools);
    const their = theirs.choices[0];
    const our = ours.choices[0];
    expect(our?.message.content).toBe(their?.message.content);
    expect(our?.message.role).toBe(their?.message.role);
    expect(our?.message.tool_calls).toEqual(
      their?.message.tool_calls?.map((call): unknown => expect.objectContaining(call)),
    );
    expect(our?.finish_reason).toBe(their?.finish_reason);
    expect([ours.id, ours.model, ours.created, ours.usage]).toEqual([
      theirs.id,
      theirs.model,
      theirs.created,
      theirs.usage,
    ]);
  });

  it("gives back any answer that was split into fragments", () => {
    const words = fc.array(anyText({ minLength: 1 }), { minLength: 1, maxLength: 5 });
    const step = fc.record({
      choice: fc.nat(2),
      field: fc.constantFrom("content", "reasoning_content", "refusal", "something_new", "call 0", "call 1"),
      words,
    });
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 20 }), (steps) => {
        const told = new Map<string, string>();
        const chunks = steps.flatMap(({ choice, field, words: parts }) =>
          parts.map((part) => {
            const slot = `${choice} ${field}`;
            const first = !told.has(slot);
            told.set(slot, (told.get(slot) ?? "") + part);
            const start = first ? { id: `id ${slot}`, type: "function" } : {};
            const call = { ...start, function: { ...(first ? { name: "f" } : {}), arguments: part } };
            const delta = field.startsWith("call ") ? toolCall(Number(field.slice(5)), call) : { [field]: part };
            return chunk(delta, { index: choice });
          }),
        );
        const { choices } = collect(chunks);
        const seen = [...new Set(steps.map(({ choice }) => choice))].sort();
        expect(choices.map(({ index }) => index)).toEqual(seen);
        for (const { index, message } of choices) {
          for (const field of ["content", "reasoning_content", "refusal", "something_new"]) {
            expect(message[field] ?? undefined).toBe(told.get(`${index} ${field}`));
          }
          const calls = [0, 1]
            .map((call) => `${index} call ${call}`)
            .filter((slot) => told.has(slot))
            .map((slot) => ({
              id: `id ${slot}`,
              type: "function",
              function: { name: "f", arguments: told.get(slot) },
            }));
          expect(message.tool_calls ?? []).toEqual(calls);
        }
      }),
      { numRuns: 300 },
    );
  });

  it("keeps null where there never was text, and an empty text where there was one", () => {
    expect(messageOf({ role: "assistant", content: null }, {}, { content: null })).toEqual({
      role: "assistant",
      content: null,
    });
    expect(messageOf({ content: "" }).content).toBe("");
    expect(messageOf({ content: null }, { content: "a" }, { content: null }).content).toBe("a");
    expect(messageOf({}, { reasoning_content: null })).toEqual({
      role: "assistant",
      content: null,
      reasoning_content: null,
    });
  });

  it("does not join what providers repeat in every chunk", () => {
    const call = { id: "call_a", type: "function" };
    const message = messageOf(
      { role: "assistant", ...toolCall(0, { ...call, function: { name: "f", arguments: "1" } }) },
      { role: "assistant", ...toolCall(0, { ...call, function: { name: "f", arguments: "2" } }) },
      { role: "assistant", ...toolCall(0, { id: "", type: null, function: { name: "", arguments: "3" } }) },
    );
    expect(message.role).toBe("assistant");
    expect(message.tool_calls).toEqual([{ ...call, function: { name: "f", arguments: "123" } }]);
  });

  it("takes tool calls without an index for calls of their own, and orders those with one", () => {
    const whole = (id: string) => ({ id, type: "function", function: { name: "f", arguments: "{}" } });
    expect(messageOf(toolCall(undefined, whole("a")), toolCall(undefined, whole("b"))).tool_calls).toEqual([
      whole("a"),
      whole("b"),
    ]);
    expect(messageOf(toolCall(3, whole("d")), toolCall(1, whole("b"))).tool_calls).toEqual([whole("b"), whole("d")]);
  });

  it("joins the legacy function_call and other objects of a delta one level down", () => {
    expect(
      messageOf(
        { function_call: { name: "f", arguments: "{" }, audio: { id: "a", data: "AA", expires_at: 1 } },
        { function_call: { arguments: "}" }, audio: { data: "BB", expires_at: 2 } },
      ),
    ).toMatchObject({ function_call: { name: "f", arguments: "{}" }, audio: { id: "a", data: "AABB", expires_at: 2 } });
  });

  it("joins unknown texts and lists of a delta, and takes the last of anything else", () => {
    expect(messageOf({ x: "a", list: [1], n: 1, flag: true }, { x: "b", list: [2, [3]], n: 2, flag: false })).toEqual({
      role: "assistant",
      content: null,
      x: "ab",
      list: [1, 2, [3]],
      n: 2,
      flag: false,
    });
  });

  it("appends the lists of logprobs", () => {
    const token = (text: string) => ({ token: text, logprob: -0.5, bytes: null, top_logprobs: [] });
    const [choice] = collect([
      chunk({ content: "a" }, { logprobs: { content: [token("a")], reasoning_content: null, refusal: null } }),
      chunk({ content: "b" }, { logprobs: { content: [token("b"), token("c")], reasoning_content: [token("r")] } }),
      chunk({}, { logprobs: null, finish_reason: "stop" }),
    ]).choices;
    expect(choice?.logprobs).toEqual({
      content: [token("a"), token("b"), token("c")],
      reasoning_content: [token("r")],
      refusal: null,
    });
  });

  it("takes the last usage, whether it comes with the finish, after it or with every chunk", () => {
    const usage = (tokens: number) => ({ prompt_tokens: 1, completion_tokens: tokens, total_tokens: 1 + tokens });
    const text = chunk({ content: "a" });
    expect(collect([text, { ...chunk({}, { finish_reason: "stop" }), usage: usage(0) }]).usage).toEqual(usage(0));
    expect(collect([text, { ...head, choices: [], usage: usage(5) }]).usage).toEqual(usage(5));
    expect(collect([1, 2, 3].map((n) => ({ ...text, usage: usage(n) }))).usage).toEqual(usage(3));
    expect(collect([{ ...text, usage: usage(4) }, text]).usage).toEqual(usage(4));
    expect(collect([text]).usage).toBeNull();
  });

  it("does not let a whole message on a choice replace what was collected", () => {
    const [choice] = collect([chunk({ content: "a" }, { message: { content: "other" } })]).choices;
    expect(choice?.message.content).toBe("a");
  });

  it("takes the last that was said of everything around the choices", () => {
    const { choices, ...top } = collect([
      { ...head, id: "", model: "", choices: [], service_tier: null },
      { ...chunk({ content: "a" }, { content_filter: { hate: 1 } }), id: "c2", service_tier: "default", extra: 1 },
      { ...chunk({ content: "b" }, { finish_reason: "length" }), id: "c2", system_fingerprint: "fp", extra: 2 },
      chunk({}, { finish_reason: null }),
    ]);
    expect(top).toMatchObject({ id: "c1", model: "deepseek-flash", object: "chat.completion" });
    expect(top).toMatchObject({ service_tier: "default", system_fingerprint: "fp", extra: 2 });
    expect(choices).toMatchObject([
      { finish_reason: "length", content_filter: { hate: 1 }, message: { content: "ab" } },
    ]);
  });
});
