import type { JsonObject } from "../../lib/json-object.ts";
import type { ApiShape } from "../api-shape.ts";
import type { ChatRequest } from "../chat-request.ts";
import { ChatCollector } from "./chat-collector.ts";
import { openaiWire } from "./openai-wire.ts";
import { checkMessages, readCount, readModel, readStream, readStreamOptions, readTokens } from "./request-checks.ts";
import { sparesStreamOptions, streamingBody } from "./streaming-body.ts";

const maxChoices = 128;

/** OpenAI's chats. */
export const chatCompletions: ApiShape = {
  ...openaiWire,
  parse: (body, streamByDefault) => parse(body, streamByDefault, continuesLast(body) ? "beta_chat" : "chat"),
  createCollector: () => new ChatCollector(),
};

/** The same for clients whose base URL ends in /beta, where DeepSeek offers more. */
export const betaChatCompletions: ApiShape = {
  ...chatCompletions,
  parse: (body, streamByDefault) => parse(body, streamByDefault, "beta_chat"),
};

function parse(body: JsonObject, streamByDefault: boolean, api: "chat" | "beta_chat"): ChatRequest {
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
    sparesStreamOptions: sparesStreamOptions(streamOptions),
    bodyFor: (upstreamModel, takes) => streamingBody(body, upstreamModel, streamOptions, takes),
  };
}

/** DeepSeek's prefix completion: the answer goes on with the last message. */
function continuesLast({ value: { messages } }: JsonObject): boolean {
  const last: unknown = Array.isArray(messages) ? messages.at(-1) : undefined;
  return typeof last === "object" && last !== null && "prefix" in last && last.prefix === true;
}

/** `max_completion_tokens` is OpenAI's newer name for `max_tokens`; the larger one counts where both are given. */
function readMaxTokens(value: JsonObject["value"]): number | null {
  const older = readTokens(value, "max_tokens");
  const newer = readTokens(value, "max_completion_tokens");
  return older === null ? newer : Math.max(older, newer ?? 0);
}
