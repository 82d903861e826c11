import { isFields, type Fields } from "./event-parser.ts";
import type { EventRole } from "./response-reader.ts";

/** An event as a provider would have streamed it. */
export interface UnfoldedEvent {
  readonly parsed: Fields;
  readonly role: EventRole;
  /** Name of the SSE event, if it has one. */
  readonly name?: string;
}

/**
 * The chunks of a chat or text completion that came whole: for each choice one with its content and one with its
 * finish_reason, then a chunk with the usage.
 */
export function* unfoldChoices(response: Fields): Generator<UnfoldedEvent> {
  const { choices, usage, object, ...rest } = response;
  const top = { ...rest, object: object === "chat.completion" ? "chat.completion.chunk" : object };
  if (!Array.isArray(choices)) return;
  const list = (choices as unknown[]).filter(isFields);
  for (const [position, choice] of list.entries()) {
    const { finish_reason, message, delta = message, ...own } = choice;
    const index = own.index ?? position;
    const isChat = isFields(delta);
    const whole = { ...own, index, ...(isChat ? { delta: withIndexes(delta) } : {}), finish_reason: null };
    yield { parsed: { ...top, choices: [whole] }, role: "part" };
    const end = { index, ...(isChat ? { delta: {} } : { text: "" }), logprobs: null, finish_reason };
    yield { parsed: { ...top, choices: [end] }, role: "finish" };
  }
  if (isFields(usage)) yield { parsed: { ...top, choices: [], usage }, role: "usage" };
}

/** Streamed tool calls are identified by an index. */
function withIndexes(message: Fields): Fields {
  const { tool_calls: calls } = message;
  if (!Array.isArray(calls)) return message;
  const indexed = (calls as unknown[]).map((call, index) => (isFields(call) ? { index, ...call } : call));
  return { ...message, tool_calls: indexed };
}

/** The events of a message in Anthropic's format that came whole, without `message_stop`. */
export function* unfoldMessage(response: Fields): Generator<UnfoldedEvent> {
  const { content, stop_reason, stop_sequence = null, usage, ...rest } = response;
  if (!Array.isArray(content)) return;
  const started = { ...rest, content: [], stop_reason: null, stop_sequence: null, usage };
  yield named({ type: "message_start", message: started });
  const blocks = (content as unknown[]).filter(isFields);
  for (const [index, block] of blocks.entries()) {
    const { begun, deltas } = unfoldBlock(block);
    yield named({ type: "content_block_start", index, content_block: begun });
    for (const delta of deltas) yield named({ type: "content_block_delta", index, delta });
    yield named({ type: "content_block_stop", index });
  }
  const end = { type: "message_delta", delta: { stop_reason, stop_sequence }, usage: usage ?? {} };
  yield { ...named(end), role: "finish" };
}

function named(parsed: Fields & { readonly type: string }): UnfoldedEvent {
  return { parsed, role: "part", name: parsed.type };
}

/** The start of a block, and the deltas with its content. Clients show nothing but deltas. */
function unfoldBlock(block: Fields): { readonly begun: Fields; readonly deltas: readonly Fields[] } {
  switch (block.type) {
    case "text":
      return { begun: { ...block, text: "" }, deltas: [{ type: "text_delta", text: block.text }] };
    case "thinking": {
      const { signature, ...begun } = block;
      const thought = { type: "thinking_delta", thinking: block.thinking };
      const deltas = signature === undefined ? [thought] : [thought, { type: "signature_delta", signature }];
      return { begun: { ...begun, thinking: "", signature: "" }, deltas };
    }
    case "tool_use":
    case "server_tool_use": {
      const json = { type: "input_json_delta", partial_json: JSON.stringify(block.input ?? {}) };
      return { begun: { ...block, input: {} }, deltas: [json] };
    }
    default:
      return { begun: block, deltas: [] };
  }
}
