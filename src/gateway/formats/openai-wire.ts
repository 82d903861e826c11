import type { ApiFormat, ClientStream } from "./api-format.ts";
import { errorBody } from "../../errors.ts";
import { type JsonObject, replaceInList, replaceMembers, withoutMember } from "../../lib/json-object.ts";
import type { ProviderFeatures } from "../../providers/provider-kind.ts";

const comment = Buffer.from(": keep-alive\n\n");
const commentAfterIds = Buffer.from(": keep-alive\n");

/** The stream of chats and text completions; their clients ignore SSE comments. */
const openaiStream: ClientStream = {
  ending: Buffer.from("data: [DONE]\n\n"),
  heartbeat: (hasIds) => (hasIds ? commentAfterIds : comment),
  errorEvent: (error, traceId) => `data: ${JSON.stringify(errorBody(error, traceId))}\n\n`,
};

/** What OpenAI's APIs have in common on the wire. */
export const openaiWire: Pick<ApiFormat, "startStream" | "errorBody" | "streams"> = {
  startStream: () => openaiStream,
  errorBody,
  streams:
    "Each is `data: ` and a chunk of the answer in JSON, the last one `data: [DONE]`. Where the answer breaks off, the " +
    "last one is `data: ` and an error instead.",
};

const withoutThinking = JSON.stringify({ type: "disabled" });
const includeUsage = JSON.stringify({ include_usage: true });

type StreamOptions = Readonly<Record<string, unknown>> | null;

/**
 * The body for a provider that knows the model under this name. It always requests a stream, and a usage report if the
 * provider supports `stream_options`: the charge needs them, whatever the client wants.
 */
export function streamingBody(
  body: JsonObject,
  upstreamModel: string,
  streamOptions: StreamOptions,
  features: ProviderFeatures,
): Buffer {
  const edits: Record<string, string> = {};
  if (body.value.stream !== true) edits.stream = "true";
  if (features.streamOptions && streamOptions?.include_usage !== true) {
    edits.stream_options =
      streamOptions === null ? includeUsage : JSON.stringify({ ...streamOptions, include_usage: true });
  }
  return edited(features.streamOptions ? body : withoutMember(body, "stream_options"), upstreamModel, edits, features);
}

/** The body for a provider that is asked for one JSON, because it refuses a stream. */
export function wholeBody(body: JsonObject, upstreamModel: string, features: ProviderFeatures): Buffer {
  const edits = body.value.stream === true ? { stream: "false" } : {};
  return edited(withoutMember(body, "stream_options"), upstreamModel, edits, features);
}

function edited(
  body: JsonObject,
  upstreamModel: string,
  edits: Readonly<Record<string, string>>,
  features: ProviderFeatures,
): Buffer {
  const limit = features.maxCompletionTokens ? null : newLimitOf(body);
  const limited = limit === null ? body : withoutMember(body, "max_completion_tokens");
  const changes = limit === null ? edits : { ...edits, max_tokens: limit };
  const base = features.developerRole || !hasDeveloper(body) ? limited : withSystem(limited);
  if (body.value.model === upstreamModel) return replaceMembers(base, changes);
  const thinking = isChatWithoutThinking(body, features) ? { thinking: withoutThinking } : {};
  return replaceMembers(base, { ...changes, model: JSON.stringify(upstreamModel), ...thinking });
}

/** The limit of a chat that has it under OpenAI's newer name alone, as JSON; null for any other. */
function newLimitOf({ value }: JsonObject): string | null {
  const { messages, max_tokens: older, max_completion_tokens: newer } = value;
  if (messages === undefined || typeof newer !== "number") return null;
  return older === undefined || older === null ? String(newer) : null;
}

/** Clients that send such a name expect no null where content is, and no tokens of reasoning to pay for. */
function isChatWithoutThinking({ value }: JsonObject, { namesWithoutThinking }: ProviderFeatures): boolean {
  const { model, messages, thinking, reasoning_effort: effort } = value;
  if (messages === undefined || thinking !== undefined || effort !== undefined) return false;
  return typeof model === "string" && namesWithoutThinking.includes(model);
}

function hasDeveloper({ value: { messages } }: JsonObject): boolean {
  const list: readonly unknown[] = Array.isArray(messages) ? messages : [];
  return list.some((one) => typeof one === "object" && one !== null && "role" in one && one.role === "developer");
}

function withSystem(body: JsonObject): JsonObject {
  return replaceInList(body, "messages", "role", "developer", "system");
}

/**
 * Whether the client's `stream_options` request nothing but usage, if anything, and are written nowhere else in its
 * request: a provider may quote a prompt that speaks of them.
 */
export function canDropStreamOptions(streamOptions: StreamOptions, { bytes }: JsonObject): boolean {
  const isOnlyUsage = streamOptions === null || Object.keys(streamOptions).every((key) => key === "include_usage");
  const expected = streamOptions === null ? 0 : 1;
  return isOnlyUsage && ["stream_options", "include_usage"].every((word) => !occursMoreThan(bytes, word, expected));
}

function occursMoreThan(bytes: Buffer, word: string, times: number): boolean {
  let at = bytes.indexOf(word);
  for (let found = 0; at !== -1; at = bytes.indexOf(word, at + 1)) if (++found > times) return true;
  return false;
}
