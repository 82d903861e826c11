import type { Completion, Usage } from "./completion.ts";

/** The provider whose streams are imitated: they differ in the places of role, usage and finish reason. */
export type Dialect = "deepseek" | "openai" | "zhipu";

/** How a scenario reports usage. */
export type UsageMode = "normal" | "none" | "zero" | "cumulative";

/** Everything a response's chunks have in common. */
export interface Envelope {
  readonly id: string;
  /** Seconds since the epoch. */
  readonly created: number;
  readonly model: string;
  readonly dialect: Dialect;
  readonly usageMode: UsageMode;
  /** OpenAI's dialect sends usage only on request. */
  readonly includeUsage: boolean;
}

/** The last event of a stream. */
export const doneEvent = "data: [DONE]\n\n";

/** The SSE events of a chat, each complete with its blank line, [DONE] included. */
export function chatEvents(completion: Completion, usage: Usage, envelope: Envelope): readonly string[] {
  const chunk = chunkWriter(envelope);
  const deltas = answerDeltas(completion, envelope.dialect);
  const cumulative = envelope.usageMode === "cumulative";
  const events = deltas.map((delta, index) =>
    chunk(delta, null, cumulative ? usageJson(partOf(usage, index), envelope) : null),
  );
  const last = envelope.dialect === "openai" ? {} : { ...emptyDelta(completion, envelope.dialect) };
  const total = envelope.usageMode === "none" ? null : usageJson(usage, envelope);
  if (envelope.dialect !== "openai") return [...events, chunk(last, completion.finishReason, total), doneEvent];
  const trailing = envelope.includeUsage && total !== null ? [usageChunk(envelope, total)] : [];
  return [...events, chunk(last, completion.finishReason, null), ...trailing, doneEvent];
}

/** The body of a chat that isn't streamed. */
export function chatBody(completion: Completion, usage: Usage, envelope: Envelope): string {
  const message = {
    role: "assistant",
    content: completion.content.join(""),
    ...(completion.reasoning.length === 0 ? {} : { reasoning_content: completion.reasoning.join("") }),
    ...(completion.toolCall === undefined ? {} : { tool_calls: [wholeToolCall(completion)] }),
  };
  return JSON.stringify({
    id: envelope.id,
    object: "chat.completion",
    created: envelope.created,
    model: envelope.model,
    choices: [{ index: 0, message, logprobs: null, finish_reason: completion.finishReason }],
    ...(envelope.usageMode === "none" ? {} : { usage: usageJson(usage, envelope) }),
    system_fingerprint: fingerprint,
  });
}

type Delta = Readonly<Record<string, unknown>>;

/** Of the normal model; the same in all responses. */
export const fingerprint = "fp_5a1c9e24b7_sim0001_fp8_kvcache";

function chunkWriter(envelope: Envelope) {
  const { id, created, model, dialect, includeUsage } = envelope;
  const deepseek = JSON.stringify({ id, object: "chat.completion.chunk", created, model });
  const head = `data: ${deepseek.slice(0, -1)},"system_fingerprint":"${fingerprint}","choices":[{"index":0,"delta":`;
  const zhipuHead = `data: ${JSON.stringify({ id, created, model }).slice(0, -1)},"choices":[{"index":0,`;
  return (delta: Delta, finishReason: string | null, usage: object | null): string => {
    const json = JSON.stringify(delta);
    if (dialect === "zhipu") {
      // Zhipu omits finish_reason and usage instead of sending null.
      const finish = finishReason === null ? "" : `"finish_reason":${JSON.stringify(finishReason)},`;
      const tail = usage === null ? "" : `,"usage":${JSON.stringify(usage)}`;
      return `${zhipuHead}${finish}"delta":${json}}]${tail}}\n\n`;
    }
    // OpenAI has the usage key in ordinary chunks only if include_usage was set.
    const withUsage = dialect === "deepseek" || includeUsage || usage !== null;
    const tail = withUsage ? `,"usage":${JSON.stringify(usage)}` : "";
    return `${head}${json},"logprobs":null,"finish_reason":${JSON.stringify(finishReason)}}]${tail}}\n\n`;
  };
}

function usageChunk({ id, created, model }: Envelope, usage: object): string {
  const chunk = { id, object: "chat.completion.chunk", created, model, choices: [], usage };
  return `data: ${JSON.stringify(chunk)}\n\n`;
}

function answerDeltas(completion: Completion, dialect: Dialect): readonly Delta[] {
  const role = { role: "assistant" };
  const thinks = completion.reasoning.length > 0;
  const texts: readonly Delta[] = [
    ...completion.reasoning.map((token) => ({ content: null, reasoning_content: token })),
    ...completion.content.map((token) => (thinks ? { content: token, reasoning_content: null } : { content: token })),
    ...toolDeltas(completion),
  ];
  if (dialect === "zhipu") return texts.map((delta) => ({ ...role, ...delta }));
  const first = thinks ? { ...role, content: null, reasoning_content: "" } : { ...role, content: "" };
  return [first, ...texts];
}

function emptyDelta(completion: Completion, dialect: Dialect): Delta {
  if (dialect === "zhipu") return { role: "assistant", content: "" };
  return completion.reasoning.length > 0 ? { content: "", reasoning_content: null } : { content: "" };
}

function toolDeltas({ toolCall }: Completion): readonly Delta[] {
  if (toolCall === undefined) return [];
  const { id, name } = toolCall;
  return [
    { tool_calls: [{ index: 0, id, type: "function", function: { name, arguments: "" } }] },
    ...toolCall.arguments.map((part) => ({ tool_calls: [{ index: 0, function: { arguments: part } }] })),
  ];
}

function wholeToolCall({ toolCall }: Completion): object {
  return {
    index: 0,
    id: toolCall?.id,
    type: "function",
    function: { name: toolCall?.name, arguments: toolCall?.arguments.join("") },
  };
}

function partOf(usage: Usage, completion: number): Usage {
  return { ...usage, completion, reasoning: Math.min(usage.reasoning, completion) };
}

/** Usage as OpenAI's APIs report it. */
export function usageJson(usage: Usage, { dialect, usageMode }: Envelope): object {
  const { prompt, cached, completion, reasoning } =
    usageMode === "zero" ? { prompt: 0, cached: 0, completion: 0, reasoning: 0 } : usage;
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: cached },
    ...(dialect === "zhipu" ? {} : { completion_tokens_details: { reasoning_tokens: reasoning } }),
    ...(dialect === "deepseek" ? { prompt_cache_hit_tokens: cached, prompt_cache_miss_tokens: prompt - cached } : {}),
  };
}
