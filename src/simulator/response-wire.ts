import type { Completion, Usage } from "./completion.ts";
import type { Envelope } from "./chat-wire.ts";

/** The SSE events of a response, each complete with its blank line; the last one has all of it. */
export function responseEvents(completion: Completion, usage: Usage, envelope: Envelope): readonly string[] {
  let number = 0;
  const event = (name: string, fields: object): string => {
    const type = `response.${name}`;
    return `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: number++, ...fields })}\n\n`;
  };
  const begun = { ...headOf(envelope), status: "in_progress", output: [], usage: null };
  const whole = wholeOf(completion, usage, envelope);
  return [
    event("created", { response: begun }),
    event("in_progress", { response: begun }),
    ...itemsOf(completion, envelope).flatMap(({ empty, steps, whole: item }, output_index) => [
      event("output_item.added", { output_index, item: empty }),
      ...steps.map(([name, fields]) => event(name, { item_id: item.id, output_index, ...fields })),
      event("output_item.done", { output_index, item }),
    ]),
    event(whole.status, { response: whole }),
  ];
}

/** The body of a response that isn't streamed. */
export function responseBody(completion: Completion, usage: Usage, envelope: Envelope): string {
  return JSON.stringify(wholeOf(completion, usage, envelope));
}

/** An error in mid-stream. */
export function responseFailed(message: string, code: string): string {
  const type = "response.failed";
  const response = { object: "response", status: "failed", output: [], error: { code, message }, usage: null };
  return `event: ${type}\ndata: ${JSON.stringify({ type, response })}\n\n`;
}

type Step = readonly [name: string, fields: object];

interface Item {
  readonly empty: object;
  readonly steps: readonly Step[];
  readonly whole: Readonly<Record<string, unknown>> & { readonly id: string };
}

function itemsOf({ reasoning, content, toolCall }: Completion, { id }: Envelope): readonly Item[] {
  const items: Item[] = [];
  if (reasoning.length > 0) {
    const item = { id: id.replace("resp_", "rs_"), type: "reasoning", summary: [] };
    items.push(textItem(item, "reasoning_text", { type: "reasoning_text" }, reasoning));
  }
  if (content.length > 0) {
    const item = { id: id.replace("resp_", "msg_"), type: "message", role: "assistant" };
    items.push(textItem(item, "output_text", { type: "output_text", annotations: [] }, content));
  }
  if (toolCall !== undefined) {
    const { id: call_id, name, arguments: pieces } = toolCall;
    const item = { id: id.replace("resp_", "fc_"), type: "function_call", call_id, name };
    const whole = { ...item, arguments: pieces.join(""), status: "completed" };
    items.push({
      empty: { ...item, arguments: "", status: "in_progress" },
      steps: [
        ...pieces.map((delta): Step => ["function_call_arguments.delta", { delta }]),
        ["function_call_arguments.done", { name, arguments: whole.arguments }],
      ],
      whole,
    });
  }
  return items;
}

/** An item with one part of text. */
function textItem(item: { readonly id: string }, name: string, part: object, tokens: readonly string[]): Item {
  const content_index = 0;
  const text = tokens.join("");
  const whole = { ...part, text };
  return {
    empty: { ...item, content: [], status: "in_progress" },
    steps: [
      ["content_part.added", { content_index, part: { ...part, text: "" } }],
      ...tokens.map((delta): Step => [`${name}.delta`, { content_index, delta }]),
      [`${name}.done`, { content_index, text }],
      ["content_part.done", { content_index, part: whole }],
    ],
    whole: { ...item, content: [whole], status: "completed" },
  };
}

function headOf({ id, created, model }: Envelope): object {
  return { id, object: "response", created_at: created, model, error: null, incomplete_details: null, store: false };
}

/** Finish reasons of chats become one of two statuses. */
function wholeOf(completion: Completion, usage: Usage, envelope: Envelope) {
  const { finishReason } = completion;
  const isComplete = finishReason === "stop" || finishReason === "tool_calls";
  const reason = finishReason === "length" ? "max_output_tokens" : finishReason;
  return {
    ...headOf(envelope),
    status: isComplete ? "completed" : "incomplete",
    incomplete_details: isComplete ? null : { reason },
    output: itemsOf(completion, envelope).map(({ whole }) => whole),
    usage: usageOf(usage, envelope),
  };
}

function usageOf({ prompt, cached, completion, reasoning }: Usage, { usageMode }: Envelope): object | null {
  if (usageMode === "none") return null;
  const unless0 = (tokens: number): number => (usageMode === "zero" ? 0 : tokens);
  return {
    input_tokens: unless0(prompt),
    input_tokens_details: { cached_tokens: unless0(cached) },
    output_tokens: unless0(completion),
    output_tokens_details: { reasoning_tokens: unless0(reasoning) },
    total_tokens: unless0(prompt + completion),
  };
}
