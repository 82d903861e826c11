import { ChoicesCollector } from "./choices-collector.ts";
import { appendField, appendFields, asIndex, emptyFields, inOrder, isFields, keepLast } from "./merge-fields.ts";
import type { Fields } from "./merge-fields.ts";

/** What is known so far of one choice. */
interface Choice {
  readonly message: Fields;
  readonly toolCalls: Map<number, Fields>;
  readonly rest: Fields;
  logprobs: Fields | null;
}

/**
 * Collects the chunks of a chat. Deltas are joined into a `message`, objects one level down (`function_call`, `audio`)
 * included. Tool calls are told apart by their `index`; one without an index is a call of its own. `logprobs` lists are
 * appended. Everything else on a choice, such as `finish_reason`, is the last that was neither null nor "".
 */
export class ChatCollector extends ChoicesCollector<Choice> {
  constructor() {
    super("chat.completion");
  }

  protected newChoice(): Choice {
    const message = emptyFields({ role: "assistant", content: null });
    return { message, toolCalls: new Map(), rest: emptyFields(), logprobs: null };
  }

  protected addChoice(into: Choice, choice: Fields): void {
    for (const key in choice) {
      const value = choice[key];
      if (key === "delta") addDelta(into, value);
      else if (key === "logprobs") {
        if (isFields(value)) appendFields((into.logprobs ??= emptyFields()), value, 0);
      } else if (key !== "index" && key !== "message") keepLast(into.rest, key, value);
    }
  }

  protected choiceOf(index: number, { message, toolCalls, logprobs, rest }: Choice): Fields {
    const calls = toolCalls.size === 0 ? {} : { tool_calls: inOrder(toolCalls).map(([, call]) => call) };
    return { index, message: { ...message, ...calls }, logprobs, finish_reason: null, ...rest };
  }
}

function addDelta(choice: Choice, delta: unknown): void {
  if (!isFields(delta)) return;
  for (const key in delta) {
    if (key === "tool_calls") addToolCalls(choice.toolCalls, delta[key]);
    else appendField(choice.message, key, delta[key], 1);
  }
}

function addToolCalls(known: Map<number, Fields>, calls: unknown): void {
  if (!Array.isArray(calls)) return;
  for (const call of calls as unknown[]) {
    if (!isFields(call)) continue;
    const { index: given, ...fragment } = call;
    const index = asIndex(given) ?? known.size;
    const into = known.get(index) ?? emptyFields();
    known.set(index, into);
    appendFields(into, fragment, 1);
  }
}
