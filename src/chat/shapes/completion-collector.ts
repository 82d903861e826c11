import { ChoicesCollector, Logprobs, type Choice } from "./choices-collector.ts";
import { emptyFields, type Fields } from "./merge-fields.ts";

interface TextChoice extends Choice {
  readonly fields: Fields;
}

/** Collects the chunks of a text completion: `text` is joined, the lists of `logprobs` are appended. */
export class CompletionCollector extends ChoicesCollector<TextChoice> {
  constructor() {
    super("text_completion");
  }

  protected newChoice(): TextChoice {
    return { fields: emptyFields({ text: "" }), rest: emptyFields(), logprobs: new Logprobs() };
  }

  protected addField({ fields }: TextChoice, key: string, value: unknown): boolean {
    if (key !== "text") return false;
    this.merge.append(fields, key, value);
    return true;
  }

  protected fieldsOf({ fields }: TextChoice): Fields {
    return fields;
  }
}
