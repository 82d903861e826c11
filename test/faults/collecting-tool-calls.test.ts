import { fc } from "../support/fast-check.ts";
import { ChatCompletionStream } from "openai/lib/ChatCompletionStream";
import { describe, expect, it, test } from "vitest";
import { UnmergeableError } from "../../src/gateway/formats/merge-fields.ts";
import { chunk, collect, messageOf } from "../support/completion-chunks.ts";

describe("C2: parallel tool calls", () => {
  const missing = {};
  const nones = (key: string) => [missing, { [key]: null }, { [key]: "" }];
  /** For the call's number: what its first fragment has, and what those after it may have. */
  const indices = [
    (n: number) => ({ first: { index: n }, later: [{ index: n }, ...nones("index")] }),
    () => ({ first: { index: 0 }, later: [{ index: 0 }, ...nones("index")] }),
    ...nones("index").map((none) => () => ({ first: none, later: nones("index") })),
  ];
  const ids = [
    (n: number) => ({ first: { id: `k${n}` }, later: [{ id: `k${n}` }, ...nones("id")] }),
    ...nones("id").map((none) => () => ({ first: none, later: nones("id") })),
  ];
  const combinations = indices.flatMap((indexOf) => ids.map((idOf) => ({ indexOf, idOf })));

  it("are told apart by every combination of missing, null, empty and repeated index and id", () => {
    for (const { indexOf, idOf } of combinations) {
      for (const laterIndex of [0, 1, 2, 3]) {
        for (const laterId of [0, 1, 2, 3]) {
          for (const repeatsName of [false, true]) {
            const deltas = [0, 1].flatMap((n) => {
              const index = indexOf(n);
              const id = idOf(n);
              const name = `f${n}`;
              const first = { ...index.first, ...id.first, type: "function", function: { name, arguments: "" } };
              const later = { ...(index.later[laterIndex] ?? missing), ...(id.later[laterId] ?? missing) };
              const part = (args: string) => ({
                ...later,
                function: { arguments: args, ...(repeatsName ? { name } : {}) },
              });
              return [first, part('{"n":'), part(`${n}}`)];
            });
            const calls = messageOf(...deltas.map((each) => ({ tool_calls: [each] }))).tool_calls;
            const expected = [0, 1].map((n) => ({
              type: "function",
              function: { name: `f${n}`, arguments: `{"n":${n}}` },
            }));
            expect(calls, JSON.stringify(deltas)).toMatchObject(expected);
            expect(calls).toHaveLength(2);
          }
        }
      }
    }
  });

  const call = (id: unknown, args: string, rest: object = {}) => ({
    ...(id === undefined ? {} : { id }),
    type: "function",
    function: { name: "f", arguments: args },
    ...rest,
  });

  test.each([
    ["another id on a known index", [[call("a", "{}", { index: 0 }), call("b", "{}", { index: 0 })]], ["{}", "{}"]],
    [
      "fragments of two calls in turn, all at index 0",
      [[call("a", "1", { index: 0 })], [call("b", "2", { index: 0 })], [call("a", "3", { index: 0 })]],
      ["13", "2"],
    ],
    ["whole calls of one function, in one list", [[call("", "{}"), call("", "{}")]], ["{}", "{}"]],
    ["whole calls of one function, one by one", [[call("", "{}")], [call(null, "{}")]], ["{}", "{}"]],
    [
      "whole calls of one function, all at index 0",
      [[call("", "{}", { index: 0 })], [call("", "{}", { index: 0 })]],
      ["{}", "{}"],
    ],
    [
      "an id that comes late",
      [[call("", "1", { index: 0 })], [{ index: 0, id: "a", function: { arguments: "2" } }]],
      ["12"],
    ],
    ["an index that comes late", [[call("a", "1")], [{ index: 4, id: "a", function: { arguments: "2" } }]], ["12"]],
    ["the same id at two indices", [[call("a", "1", { index: 0 })], [call("a", "2", { index: 1 })]], ["1", "2"]],
    ["indices out of order", [[call("b", "1", { index: 1 })], [call("a", "2", { index: 0 })]], ["2", "1"]],
  ])("%s", (_name, lists, expected) => {
    const calls = messageOf(...lists.map((tool_calls) => ({ tool_calls }))).tool_calls as readonly {
      readonly function: { readonly arguments: string };
    }[];
    expect(calls.map((each) => each.function.arguments)).toEqual(expected);
  });

  it("keeps tools with free text as their input", () => {
    const custom = (input: string, rest: object = {}) => ({ index: 0, custom: { input, ...rest } });
    expect(
      messageOf(
        { tool_calls: [{ ...custom("a", { name: "patch" }), id: "k", type: "custom" }] },
        { tool_calls: [custom("b")] },
      ).tool_calls,
    ).toEqual([{ id: "k", type: "custom", custom: { name: "patch", input: "ab" } }]);
  });

  it("refuses a call with two names", () => {
    const named = (name: string) => ({ tool_calls: [{ index: 0, id: "k", function: { name, arguments: "" } }] });
    expect(() => messageOf(named("f"), named("g"))).toThrow(UnmergeableError);
  });

  it("gives the calls that the OpenAI SDK accumulates from any well-formed stream", async () => {
    const step = fc.record({ n: fc.nat(2), args: fc.string({ maxLength: 5 }) });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
        const order = [...new Set(steps.map(({ n }) => n))];
        const chunks = steps.map(({ n, args }, at) => {
          const index = order.indexOf(n);
          const isFirst = steps.findIndex((other) => other.n === n) === at;
          const start = isFirst ? { id: `k${n}`, type: "function" } : {};
          return chunk({
            ...(at === 0 ? { role: "assistant" } : {}),
            tool_calls: [{ index, ...start, function: { ...(isFirst ? { name: `f${n}` } : {}), arguments: args } }],
          });
        });
        const all = [...chunks, chunk({}, { finish_reason: "tool_calls" })];
        const body = new Blob([all.map((each) => `${JSON.stringify(each)}\n`).join("")]).stream();
        const theirs = await ChatCompletionStream.fromReadableStream(body).finalChatCompletion();
        const [choice] = JSON.parse(JSON.stringify(theirs.choices));
        for (const each of choice.message.tool_calls) delete each.function.parsed_arguments;
        expect(collect(all).choices[0]?.message.tool_calls).toEqual(choice.message.tool_calls);
      }),
      { numRuns: 30 },
    );
  });
});
