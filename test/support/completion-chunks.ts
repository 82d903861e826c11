import { ChatCollector } from "../../src/gateway/formats/chat-completions.ts";

/** As much of a chat completion as tests look at. */
interface Completion extends Record<string, unknown> {
  readonly choices: readonly {
    readonly index: number;
    readonly message: Readonly<Record<string, unknown>>;
    readonly logprobs: unknown;
    readonly finish_reason: unknown;
  }[];
}

/** What every chunk of one answer begins with. */
export const head = { id: "c1", object: "chat.completion.chunk", created: 1752169304, model: "deepseek-flash" };

/** A chunk with one choice; `rest` overrides the choice's other fields. */
export function chunk(delta: unknown, rest: object = {}) {
  return { ...head, choices: [{ index: 0, delta, logprobs: null, finish_reason: null, ...rest }], usage: null };
}

/** A delta with a fragment of one tool call; without an index where that is undefined. */
export function toolCall(index: number | undefined, fields: object) {
  return { tool_calls: [{ ...(index === undefined ? {} : { index }), ...fields }] };
}

/** What a client gets who asked for one JSON. Throws UnmergeableError where there is none. */
export function collect(chunks: readonly unknown[]): Completion {
  const collector = new ChatCollector();
  for (const each of chunks) collector.add(each);
  return JSON.parse(collector.body()) as Completion;
}

/** The message that a choice's deltas come to. */
export function messageOf(...deltas: readonly unknown[]): Readonly<Record<string, unknown>> {
  return collect(deltas.map((delta) => chunk(delta))).choices[0]?.message ?? {};
}
