import { ChoicesCollector } from "./choices-collector.ts";
import { appendFields, emptyFields, isFields, keepLast, type Fields } from "./merge-fields.ts";

/** What is known so far of one choice. */
interface Choice {
  text: string;
  readonly rest: Fields;
  logprobs: Fields | null;
}

/** Collects the chunks of a text completion: `text` is joined, the lists of `logprobs` are appended. */
export class CompletionCollector extends ChoicesCollector<Choice> {
  constructor() {
    super("text_completion");
  }

  protected newChoice(): Choice {
    return { text: "", rest: emptyFields(), logprobs: null };
  }

  protected addChoice(into: Choice, choice: Fields): void {
    for (const key in choice) {
      const value = choice[key];
      if (key === "text") {
        if (typeof value === "string") into.text += value;
      } else if (key === "logprobs") {
        if (isFields(value)) appendFields((into.logprobs ??= emptyFields()), value, 0);
      } else if (key !== "index") keepLast(into.rest, key, value);
    }
  }

  protected choiceOf(index: number, { text, logprobs, rest }: Choice): Fields {
    return { text, index, logprobs, finish_reason: null, ...rest };
  }
}
