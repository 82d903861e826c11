import type { Collector } from "../api-shape.ts";
import { appendField, asIndex, emptyFields, inOrder, isFields, keepLast, type Fields } from "./merge-fields.ts";

/** What is known so far of one block of content. */
interface Block {
  readonly fields: Fields;
  /** A tool's input, in fragments of JSON. */
  json: string;
}

/**
 * Collects Anthropic's events into one message. `message_start` brings the message without content, `message_delta` its
 * end and usage; the texts of a block are joined, and what a delta calls `partial_json` becomes the block's `input`.
 * Where that is no JSON, for an answer may be cut by max_tokens, `input` is empty and the text stays beside it.
 */
export class MessageCollector implements Collector {
  readonly #message = emptyFields();
  readonly #usage = emptyFields();
  readonly #blocks = new Map<number, Block>();

  add(parsed: unknown): void {
    if (!isFields(parsed)) return;
    if (parsed.type === "message_start") this.#start(parsed.message);
    else if (parsed.type === "message_delta") this.#end(parsed);
    else {
      const index = asIndex(parsed.index);
      if (index === undefined) return;
      if (parsed.type === "content_block_start") this.#open(index, parsed.content_block);
      else if (parsed.type === "content_block_delta") this.#append(index, parsed.delta);
    }
  }

  body(): string {
    return JSON.stringify(this.#result());
  }

  partial(): Fields {
    return { ...this.#result(), stop_reason: null, stop_sequence: null };
  }

  #result(): Fields {
    const content = inOrder(this.#blocks).map(([, { fields, json }]) => ({ ...fields, ...inputOf(fields, json) }));
    return { type: "message", role: "assistant", stop_reason: null, ...this.#message, content, usage: this.#usage };
  }

  #start(message: unknown): void {
    if (!isFields(message)) return;
    for (const key in message) {
      if (key === "usage") this.#count(message.usage);
      else if (key !== "content") keepLast(this.#message, key, message[key]);
    }
  }

  #end({ delta, usage }: Fields): void {
    if (isFields(delta)) for (const key in delta) keepLast(this.#message, key, delta[key]);
    this.#count(usage);
  }

  #count(usage: unknown): void {
    if (isFields(usage)) for (const key in usage) keepLast(this.#usage, key, usage[key]);
  }

  #open(index: number, block: unknown): void {
    if (isFields(block)) this.#blocks.set(index, { fields: emptyFields({ ...block }), json: "" });
  }

  #append(index: number, delta: unknown): void {
    const block = this.#blocks.get(index);
    if (block === undefined || !isFields(delta)) return;
    for (const key in delta) {
      const value = delta[key];
      if (key === "type") continue;
      if (key === "partial_json") block.json += typeof value === "string" ? value : "";
      // One citation after the other, each in a delta of its own.
      else if (key === "citation") appendField(block.fields, "citations", [value], 0);
      else appendField(block.fields, key, value, 0);
    }
  }
}

function inputOf(fields: Fields, json: string): Fields {
  if (json === "") return {};
  try {
    return { input: JSON.parse(json) as unknown };
  } catch {
    return { input: fields.input ?? {}, partial_json: json };
  }
}
