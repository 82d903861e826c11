import { scrubSecrets } from "../lib/secret-text.ts";

/** Most characters of text in one attribute. */
const maxText = 16 << 10;
/** Most messages of a prompt, and most choices of a response. */
const maxMessages = 100;

type Fields = Readonly<Record<string, unknown>>;

interface Part {
  readonly type: "text" | "reasoning" | "tool_call" | "omitted";
  readonly content?: string;
}

interface Message {
  readonly role: string;
  readonly parts: readonly Part[];
}

/**
 * The prompt of a request as `gen_ai.input.messages` has it: JSON. The last messages are kept where all are too long.
 * Secrets are redacted; images and the like are named, and left out.
 */
export function inputMessages(body: Fields): string {
  let left = maxText;
  const cut = (text: string): string => {
    const part = text.slice(0, left);
    left -= part.length;
    return scrubSecrets(part);
  };
  const messages: Message[] = [];
  for (const message of messagesIn(body).slice(-maxMessages).reverse()) {
    if (left <= 0) break;
    messages.push({ role: message.role, parts: partsOf(message.content, cut) });
  }
  return JSON.stringify(messages.reverse());
}

interface RawMessage {
  readonly role: string;
  readonly content: unknown;
}

function messagesIn({ messages, system, instructions, input, prompt }: Fields): readonly RawMessage[] {
  const first = system ?? instructions;
  const listed = messages ?? input ?? prompt;
  const list: readonly unknown[] = Array.isArray(listed) ? listed : [listed];
  return [
    ...(first === undefined ? [] : [{ role: "system", content: first }]),
    ...list.map((one) =>
      isFields(one) && !("type" in one && one.type === "text")
        ? { role: roleOf(one.role), content: one.content ?? one.output ?? one.arguments }
        : { role: "user", content: one },
    ),
  ];
}

function roleOf(role: unknown): string {
  return typeof role === "string" ? role.slice(0, 20) : "user";
}

function partsOf(content: unknown, cut: (text: string) => string): readonly Part[] {
  if (typeof content === "string") return [{ type: "text", content: cut(content) }];
  if (!Array.isArray(content)) return [];
  return content.slice(0, maxMessages).map((part: unknown) => {
    if (typeof part === "string") return { type: "text", content: cut(part) };
    const text = isFields(part) ? (part.text ?? part.content) : undefined;
    return typeof text === "string" ? { type: "text", content: cut(text) } : { type: "omitted" };
  });
}

/** Collects the text of a response from its events, up to a bound. */
export class OutputText {
  readonly #choices = new Map<number, { text: string; reasoning: string }>();
  #left = maxText;

  /** Takes an event of any API. */
  add(event: unknown): void {
    if (!isFields(event)) return;
    const { choices, delta, type } = event;
    if (Array.isArray(choices)) {
      for (const [at, choice] of (choices as unknown[]).slice(0, maxMessages).entries()) {
        if (isFields(choice)) this.#addChoice(choice, typeof choice.index === "number" ? choice.index : at);
      }
    } else if (type === "content_block_delta" && isFields(delta)) {
      this.#append(0, delta.text, "text");
      this.#append(0, delta.thinking, "reasoning");
    } else if (type === "response.output_text.delta") this.#append(0, delta, "text");
  }

  /** As `gen_ai.output.messages` has it: JSON. @param finishReasons of the choices, in order */
  messages(finishReasons: readonly string[]): string {
    return JSON.stringify(
      Array.from(this.#choices, ([index, { text, reasoning }]) => ({
        role: "assistant",
        parts: [
          ...(reasoning === "" ? [] : [{ type: "reasoning", content: scrubSecrets(reasoning) }]),
          { type: "text", content: scrubSecrets(text) },
        ],
        finish_reason: finishReasons[index] ?? finishReasons[0] ?? "",
      })),
    );
  }

  #addChoice({ delta, message, text }: Fields, index: number): void {
    this.#append(index, text, "text");
    const said = delta ?? message;
    if (!isFields(said)) return;
    this.#append(index, said.content, "text");
    this.#append(index, said.reasoning_content ?? said.reasoning, "reasoning");
  }

  #append(index: number, text: unknown, kind: "text" | "reasoning"): void {
    if (typeof text !== "string" || text === "" || this.#left <= 0) return;
    const choice = this.#choices.get(index) ?? { text: "", reasoning: "" };
    if (this.#choices.size >= maxMessages && !this.#choices.has(index)) return;
    const part = text.slice(0, this.#left);
    this.#left -= part.length;
    choice[kind] += part;
    this.#choices.set(index, choice);
  }
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
