import type { Collector } from "./api-format.ts";
import {
  asIndex,
  emptyFields,
  fieldsOf,
  inOrder,
  isFields,
  isNothing,
  itemsOf,
  jsonOf,
  Merge,
} from "./merge-fields.ts";
import { UnmergeableError, type Fields } from "./merge-fields.ts";

/** A choice as far as it has arrived. */
export interface Choice {
  /** Fields whose last value counts, such as `finish_reason`, and unknown texts. */
  readonly rest: Fields;
  readonly logprobs: Logprobs;
}

/** Fields that only make events longer, so that their lengths don't reveal the text. */
export const padding: ReadonlySet<string> = new Set(["obfuscation", "p"]);

/** Other fields of a choice that arrive in fragments: texts and lists. */
const growingFields: ReadonlySet<string> = new Set(["text", "reasoning", "reasoning_content", "token_ids"]);
/** Memory of a choice, in values. */
const valuesOfChoice = 16;

/**
 * Collects chunks with `choices`, as OpenAI streams them, into the one JSON that the provider would have sent without
 * streaming. Subclasses define a choice. Of the top-level fields, such as `usage` and `id`, the last value that is
 * neither null nor "" counts.
 */
export abstract class ChoicesCollector<C extends Choice> implements Collector {
  protected readonly merge = new Merge();
  readonly #object: string;
  readonly #top = emptyFields();
  readonly #choices = new Map<number, C>();

  /** @param object the response's `object` field */
  constructor(object: string) {
    this.#object = object;
  }

  protected abstract newChoice(): C;
  /** Takes a field of a choice; false if this API has no such field. */
  protected abstract addField(into: C, key: string, value: unknown): boolean;
  /** The fields of a choice besides `index`, `logprobs`, `finish_reason` and those in `rest`. */
  protected abstract fieldsOf(choice: C): Fields;

  add(parsed: unknown): void {
    if (!isFields(parsed)) throw new UnmergeableError("an event is not an object");
    for (const key in parsed) {
      if (key === "choices") this.#addChoices(parsed.choices);
      else if (!padding.has(key)) this.merge.keepLast(this.#top, key, parsed[key]);
    }
  }

  body(): string {
    return this.#json({});
  }

  partial(): string {
    return this.#json({ finish_reason: null });
  }

  /** Assembled from pieces, because logprobs are JSON already. */
  #json(over: Fields): string {
    const choices = inOrder(this.#choices).map(([index, choice]) => {
      const fields = { index, ...this.fieldsOf(choice), finish_reason: null, ...choice.rest, ...over };
      return jsonOf(fields, `"logprobs":${choice.logprobs.json()}`);
    });
    this.#top.object = this.#object;
    return jsonOf(this.#top, `"choices":[${choices.join(",")}]`);
  }

  #addChoices(given: unknown): void {
    const choices = itemsOf("choices", given);
    for (let position = 0; position < choices.length; position++) {
      const choice = fieldsOf("a choice", choices[position]);
      if (choice !== null) this.#addChoice(this.#choiceAt(asIndex(choice.index) ?? position), choice);
    }
  }

  #addChoice(into: C, choice: Fields): void {
    for (const key in choice) {
      const value = choice[key];
      if (key === "logprobs") into.logprobs.add(value, this.merge);
      else if (key === "index" || padding.has(key) || this.addField(into, key, value)) continue;
      else if (growingFields.has(key)) this.merge.append(into.rest, key, value);
      else this.merge.keepLast(into.rest, key, value);
    }
  }

  #choiceAt(index: number): C {
    let choice = this.#choices.get(index);
    if (choice === undefined) {
      this.merge.count(valuesOfChoice);
      choice = this.newChoice();
      this.#choices.set(index, choice);
    }
    return choice;
  }
}

/**
 * The logprobs of a choice: lists with one item for each token. Kept as JSON text, which takes a tenth of the memory of
 * objects; the proxy never reads them.
 */
export class Logprobs {
  /** By field: the items of a list as JSON, with commas between them. */
  readonly #lists = new Map<string, string>();
  readonly #rest = emptyFields();

  /** @throws UnmergeableError, or RangeError if it is nested too deeply */
  add(value: unknown, merge: Merge): void {
    if (value === null) return;
    const fields = fieldsOf("logprobs", value);
    for (const key in fields) {
      const list = fields[key];
      if (Array.isArray(list)) this.#addList(key, list, merge);
      else if (isNothing(list) || !this.#lists.has(key)) merge.append(this.#rest, key, list);
      else throw new UnmergeableError(`logprobs.${key.slice(0, 100)} is a list no more`);
    }
  }

  json(): string {
    const fields = Object.entries(this.#rest).filter(([key]) => !this.#lists.has(key));
    const members = [
      ...fields.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`),
      ...[...this.#lists].map(([key, items]) => `${JSON.stringify(key)}:[${items}]`),
    ];
    return members.length === 0 ? "null" : `{${members.join(",")}}`;
  }

  #addList(key: string, list: readonly unknown[], merge: Merge): void {
    const known = this.#lists.get(key);
    if (known === undefined) {
      if (!isNothing(this.#rest[key])) throw new UnmergeableError(`logprobs.${key.slice(0, 100)} is a list only now`);
      merge.count(1);
    }
    const items = JSON.stringify(list).slice(1, -1);
    const between = known === undefined || known === "" || items === "" ? "" : ",";
    this.#lists.set(key, (known ?? "") + between + items);
  }
}
