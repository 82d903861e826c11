import type { Collector } from "../api-shape.ts";
import { asIndex, emptyFields, inOrder, isFields, keepLast, type Fields } from "./merge-fields.ts";

/**
 * Collects chunks with `choices`, as OpenAI streams them, into the one JSON that the provider would have answered
 * without streaming. What a choice is, is told by the class below. Everything at the top, such as `usage` and `id`, is
 * the last that was neither null nor "".
 */
export abstract class ChoicesCollector<Choice> implements Collector {
  readonly #object: string;
  readonly #top = emptyFields();
  readonly #choices = new Map<number, Choice>();

  /** @param object what the answer calls itself */
  constructor(object: string) {
    this.#object = object;
  }

  protected abstract newChoice(): Choice;
  protected abstract addChoice(into: Choice, choice: Fields): void;
  protected abstract choiceOf(index: number, choice: Choice): Fields;

  add(parsed: unknown): void {
    if (!isFields(parsed)) return;
    for (const key in parsed) {
      if (key === "choices") this.#addChoices(parsed.choices);
      else keepLast(this.#top, key, parsed[key]);
    }
  }

  /** The answer as far as it has come. More chunks may be added afterwards. */
  result(): Fields {
    const choices = inOrder(this.#choices).map(([index, choice]) => this.choiceOf(index, choice));
    return { ...this.#top, object: this.#object, choices };
  }

  body(): string {
    return JSON.stringify(this.result());
  }

  partial(): Fields {
    const result = this.result();
    const choices = result.choices as readonly Fields[];
    return { ...result, choices: choices.map((choice) => ({ ...choice, finish_reason: null })) };
  }

  #addChoices(choices: unknown): void {
    if (!Array.isArray(choices)) return;
    for (let position = 0; position < choices.length; position++) {
      const choice: unknown = choices[position];
      if (isFields(choice)) this.addChoice(this.#choiceAt(asIndex(choice.index) ?? position), choice);
    }
  }

  #choiceAt(index: number): Choice {
    let choice = this.#choices.get(index);
    if (choice === undefined) {
      choice = this.newChoice();
      this.#choices.set(index, choice);
    }
    return choice;
  }
}
