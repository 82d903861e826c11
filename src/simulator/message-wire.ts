import type { Completion, Usage } from "./completion.ts";
import type { Envelope } from "./chat-wire.ts";

/** Anthropic's names for finish reasons; others are unchanged. */
const stopReasons: ReadonlyMap<string, string> = new Map([
  ["stop", "end_turn"],
  ["length", "max_tokens"],
  ["tool_calls", "tool_use"],
]);

/** The SSE events of a message, each complete with its blank line, from `message_start` to `message_stop`. */
export function messageEvents(completion: Completion, usage: Usage, envelope: Envelope): readonly string[] {
  const blocks = blocksOf(completion);
  const message = { ...messageOf(envelope, usage, 0), content: [], stop_reason: null, stop_sequence: null };
  const delta = { stop_reason: stopReasonOf(completion), stop_sequence: null };
  return [
    event("message_start", { message }),
    event("ping", {}),
    ...blocks.flatMap(({ empty, deltas }, index) => [
      event("content_block_start", { index, content_block: empty }),
      ...deltas.map((each) => event("content_block_delta", { index, delta: each })),
      event("content_block_stop", { index }),
    ]),
    event("message_delta", { delta, ...(usageOf(envelope, usage, usage.completion) ?? {}) }),
    event("message_stop", {}),
  ];
}

/** The body of a message that isn't streamed. */
export function messageBody(completion: Completion, usage: Usage, envelope: Envelope): string {
  return JSON.stringify({
    ...messageOf(envelope, usage, usage.completion),
    content: blocksOf(completion).map(({ whole }) => whole),
    stop_reason: stopReasonOf(completion),
    stop_sequence: null,
  });
}

/** An error as Anthropic's API writes it, as a body. */
export function messageError(message: string, type: string): string {
  return JSON.stringify({ type: "error", error: { type, message } });
}

interface Block {
  readonly empty: object;
  readonly deltas: readonly object[];
  readonly whole: object;
}

function blocksOf({ reasoning, content, toolCall }: Completion): readonly Block[] {
  const blocks: Block[] = [];
  if (reasoning.length > 0) {
    const signature = "c2ltdWxhdG9y";
    blocks.push({
      empty: { type: "thinking", thinking: "", signature: "" },
      deltas: [
        ...reasoning.map((thinking) => ({ type: "thinking_delta", thinking })),
        { type: "signature_delta", signature },
      ],
      whole: { type: "thinking", thinking: reasoning.join(""), signature },
    });
  }
  if (content.length > 0) {
    blocks.push({
      empty: { type: "text", text: "" },
      deltas: content.map((text) => ({ type: "text_delta", text })),
      whole: { type: "text", text: content.join("") },
    });
  }
  if (toolCall !== undefined) {
    const { id, name, arguments: parts } = toolCall;
    blocks.push({
      empty: { type: "tool_use", id, name, input: {} },
      deltas: parts.map((partial_json) => ({ type: "input_json_delta", partial_json })),
      whole: { type: "tool_use", id, name, input: inputOf(parts.join("")) },
    });
  }
  return blocks;
}

/** Arguments that max_tokens has cut are not valid JSON. */
function inputOf(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return {};
  }
}

function messageOf({ id, model, ...envelope }: Envelope, usage: Usage, output: number): object {
  return { id, type: "message", role: "assistant", model, ...usageOf(envelope, usage, output) };
}

/** The prompt's tokens without the cached ones, unlike OpenAI's. */
function usageOf({ usageMode }: Pick<Envelope, "usageMode">, usage: Usage, output: number): object | undefined {
  if (usageMode === "none") return undefined;
  const { prompt, cached } = usage;
  const zero = usageMode === "zero";
  return {
    usage: {
      input_tokens: zero ? 0 : prompt - cached,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: zero ? 0 : cached,
      output_tokens: zero ? 0 : output,
    },
  };
}

function stopReasonOf({ finishReason }: Completion): string {
  return stopReasons.get(finishReason) ?? finishReason;
}

function event(type: string, fields: object): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`;
}
