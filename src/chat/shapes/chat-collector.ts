import { ChoicesCollector, Logprobs, padding, type Choice } from "./choices-collector.ts";
import { emptyFields, fieldsOf, isFields, isNothing, itemsOf, type Fields } from "./merge-fields.ts";
import { ToolCalls } from "./tool-calls.ts";

interface ChatChoice extends Choice {
  readonly message: Fields;
  readonly toolCalls: ToolCalls;
  /** Where a message came whole instead of in deltas, it is here. */
  readonly whole: Fields;
  /** Whether any delta has said something beside the role. */
  said: boolean;
}

/**
 * Collects the chunks of a chat. Deltas are merged into a `message`, the fragments of tool calls and the lists of
 * `logprobs` as well. Everything else on a choice, such as `finish_reason`, is the last that was neither null nor "".
 */
export class ChatCollector extends ChoicesCollector<ChatChoice> {
  constructor() {
    super("chat.completion");
  }

  protected newChoice(): ChatChoice {
    const message = emptyFields({ role: "assistant", content: null });
    const toolCalls = new ToolCalls();
    return { message, toolCalls, whole: emptyFields(), said: false, rest: emptyFields(), logprobs: new Logprobs() };
  }

  protected addField(into: ChatChoice, key: string, value: unknown): boolean {
    if (key === "delta") this.#addDelta(into, value);
    else if (key === "message") this.merge.keepLast(into.whole, key, fieldsOf(key, value));
    else return false;
    return true;
  }

  protected fieldsOf({ message, toolCalls, whole, said }: ChatChoice): Fields {
    if (!said && isFields(whole.message)) return { message: whole.message };
    const calls = toolCalls.list();
    return { message: calls.length === 0 ? message : { ...message, tool_calls: calls } };
  }

  #addDelta(choice: ChatChoice, value: unknown): void {
    const delta = fieldsOf("delta", value);
    for (const key in delta) {
      const piece = delta[key];
      if (padding.has(key)) continue;
      if (key !== "role" && !choice.said) choice.said = !isNothing(piece);
      if (key === "tool_calls") choice.toolCalls.add(itemsOf(key, piece), this.merge);
      else this.merge.append(choice.message, key, piece);
    }
  }
}
