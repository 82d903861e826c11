import { z } from "zod";
import type { ApiFormat, ParsedRequest } from "./api-format.ts";
import { type Choice, ChoicesCollector, Logprobs, padding } from "./choices-collector.ts";
import type { JsonObject } from "../../lib/json-object.ts";
import { emptyFields, type Fields, fieldsOf, isFields, isNothing, itemsOf } from "./merge-fields.ts";
import { openaiWire, canDropStreamOptions, streamingBody, wholeBody } from "./openai-wire.ts";
import { checkMessages, readCount, readModel, readStream, readStreamOptions, readTokens } from "./request-checks.ts";
import * as parts from "./schema-parts.ts";
import { ToolCalls } from "./tool-calls.ts";

const maxChoices = 128;

const requestSchema = z
  .looseObject({
    model: parts.model,
    messages: z.array(parts.chatMessage).min(1),
    stream: z
      .boolean()
      .nullish()
      .describe(
        "true: server-sent events; false: one JSON. Absent: JSON on /v1; on /chat/completions as chat.stream_default says, or JSON where Accept takes nothing else.",
      ),
    stream_options: parts.streamOptions,
    max_tokens: parts.maxTokens,
    max_completion_tokens: parts.maxTokens,
    n: z.int().min(1).max(128).nullish(),
  })
  .meta({
    description: "An OpenAI chat request. Fields that are not named here are passed on as they are.",
    examples: [
      { model: "deepseek-v4-pro", messages: [{ role: "user", content: "Say hello." }], stream: false },
      { model: "deepseek-v4-pro", messages: [{ role: "user", content: "Say hello." }], stream: true },
    ],
  });

const responseSchema = z.looseObject({
  id: z.string(),
  object: z.literal("chat.completion"),
  created: z.number(),
  model: z.string(),
  choices: z.array(z.looseObject({ index: z.number(), finish_reason: z.string().nullable() })),
});

/** OpenAI's chats. */
export const chatCompletions: ApiFormat = {
  ...openaiWire,
  routes: [
    { summary: "Chat (as DeepSeek has it)", paths: ["/chat/completions"], mayStreamByDefault: true },
    { summary: "Chat (as OpenAI does it)", paths: ["/v1/chat/completions"] },
  ],
  requestSchema,
  responseSchema,
  parse: (body, streamByDefault) => parse(body, streamByDefault, continuesLast(body) ? "beta_chat" : "chat"),
  createCollector: () => new ChatCollector(),
};

/** The same for clients whose base URL ends in /beta, where DeepSeek offers more. */
export const betaChatCompletions: ApiFormat = {
  ...chatCompletions,
  routes: [{ summary: "Chat with DeepSeek's beta features", paths: ["/beta/chat/completions"] }],
  parse: (body, streamByDefault) => parse(body, streamByDefault, "beta_chat"),
};

function parse(body: JsonObject, streamByDefault: boolean, api: "chat" | "beta_chat"): ParsedRequest {
  const { value } = body;
  const model = readModel(value);
  checkMessages(value);
  const stream = readStream(value) ?? streamByDefault;
  const streamOptions = readStreamOptions(value);
  return {
    api,
    model,
    stream,
    collects: !stream,
    wantsUsageChunk: streamOptions?.include_usage === true,
    maxTokens: readMaxTokens(value),
    choices: readCount(value, "n", maxChoices) ?? 1,
    bytes: body.bytes.length,
    canDropStreamOptions() {
      return canDropStreamOptions(streamOptions, body);
    },
    bodyFor: (upstreamModel, takes, asWhole) =>
      asWhole === true
        ? wholeBody(body, upstreamModel, takes)
        : streamingBody(body, upstreamModel, streamOptions, takes),
  };
}

/** DeepSeek's prefix completion: the model continues the last message. */
function continuesLast({ value: { messages } }: JsonObject): boolean {
  const last: unknown = Array.isArray(messages) ? messages.at(-1) : undefined;
  return typeof last === "object" && last !== null && "prefix" in last && last.prefix === true;
}

/** `max_completion_tokens` is OpenAI's newer name for `max_tokens`; if both are given the larger one counts. */
function readMaxTokens(value: JsonObject["value"]): number | null {
  const older = readTokens(value, "max_tokens");
  const newer = readTokens(value, "max_completion_tokens");
  return older === null ? newer : Math.max(older, newer ?? 0);
}

interface ChatChoice extends Choice {
  readonly message: Fields;
  readonly toolCalls: ToolCalls;
  /** A message that came whole instead of in deltas. */
  readonly whole: Fields;
  /** Whether any delta had more than the role. */
  hasContent: boolean;
}

/**
 * Collects the chunks of a chat. Deltas are merged into a `message`, including the fragments of tool calls; the lists
 * of `logprobs` are appended. Of everything else on a choice, such as `finish_reason`, the last value that is neither
 * null nor "" counts.
 */
export class ChatCollector extends ChoicesCollector<ChatChoice> {
  constructor() {
    super("chat.completion");
  }

  protected newChoice(): ChatChoice {
    const message = emptyFields({ role: "assistant", content: null });
    const toolCalls = new ToolCalls();
    return {
      message,
      toolCalls,
      whole: emptyFields(),
      hasContent: false,
      rest: emptyFields(),
      logprobs: new Logprobs(),
    };
  }

  protected addField(into: ChatChoice, key: string, value: unknown): boolean {
    if (key === "delta") this.#addDelta(into, value);
    else if (key === "message") this.merge.keepLast(into.whole, key, fieldsOf(key, value));
    else return false;
    return true;
  }

  protected fieldsOf({ message, toolCalls, whole, hasContent: said }: ChatChoice): Fields {
    if (!said && isFields(whole.message)) return { message: whole.message };
    const calls = toolCalls.list();
    return { message: calls.length === 0 ? message : { ...message, tool_calls: calls } };
  }

  #addDelta(choice: ChatChoice, value: unknown): void {
    const delta = fieldsOf("delta", value);
    for (const key in delta) {
      const piece = delta[key];
      if (padding.has(key)) continue;
      if (key !== "role" && !choice.hasContent) choice.hasContent = !isNothing(piece);
      if (key === "tool_calls") choice.toolCalls.add(itemsOf(key, piece), this.merge);
      else this.merge.append(choice.message, key, piece);
    }
  }
}
