import { AppError } from "../errors.ts";
import { replaceMembers, type JsonObject } from "../lib/json-object.ts";
import type { Question } from "../upstream/dispatch.ts";

/** Most output tokens that a request may name; far above any model's. */
const maxTokensCeiling = 10_000_000;
const maxModelLength = 200;
const maxChoices = 128;

/** A chat request that passed all checks. The body itself goes upstream as it came, with a few members replaced. */
export interface ChatRequest extends Question {
  readonly model: string;
  /** Whether the client wants SSE; else one JSON. */
  readonly stream: boolean;
  /** Whether the client asked for OpenAI's extra usage chunk. */
  readonly wantsUsageChunk: boolean;
  /** Most tokens of output that the client allows, for one choice; null where it names none. */
  readonly maxTokens: number | null;
  /** Number of answers asked for. */
  readonly choices: number;
  /** Size of the body in bytes. */
  readonly bytes: number;
}

/**
 * Checks by hand what the proxy needs and leaves the rest to the provider: unknown fields pass through.
 * Throws AppError invalid_request (400) naming the field, what came and what would be right.
 * @param streamByDefault what an absent `stream` means on this route
 */
export function parseChatRequest(body: JsonObject, streamByDefault: boolean): ChatRequest {
  const { value } = body;
  const model = value.model;
  if (typeof model !== "string" || model === "" || model.length > maxModelLength) {
    throw refuse("model", value.model, `a model name of 1 to ${maxModelLength} characters`);
  }
  checkMessages(value.messages);
  const stream = value.stream ?? null;
  if (stream !== null && typeof stream !== "boolean") throw refuse("stream", stream, "true or false");
  const streamOptions = readStreamOptions(value.stream_options);
  const wantsUsageChunk = streamOptions?.include_usage === true;
  const maxTokens = readMaxTokens(value);
  const choices = readCount("n", value.n, maxChoices) ?? 1;
  return {
    path: "/chat/completions",
    model,
    stream: stream ?? streamByDefault,
    wantsUsageChunk,
    maxTokens,
    choices,
    bytes: body.bytes.length,
    bodyFor(upstreamModel) {
      const edits: Record<string, string> = {};
      // The provider is always asked to stream, and to report usage: a charge needs it, whatever the client wants.
      if (stream !== true) edits.stream = "true";
      if (!wantsUsageChunk) edits.stream_options = JSON.stringify({ ...streamOptions, include_usage: true });
      if (upstreamModel !== model) edits.model = JSON.stringify(upstreamModel);
      return replaceMembers(body, edits);
    },
  };
}

function checkMessages(messages: unknown): void {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw refuse("messages", messages, "a list of at least one message");
  }
  for (let i = 0; i < messages.length; i++) {
    const message: unknown = messages[i];
    if (typeof message !== "object" || message === null || Array.isArray(message)) {
      throw refuse(`messages.${i}`, message, "an object with role and content");
    }
    if (!("role" in message) || typeof message.role !== "string") {
      throw refuse(`messages.${i}.role`, "role" in message ? message.role : undefined, "a text such as user");
    }
  }
}

function readStreamOptions(options: unknown): Record<string, unknown> | null {
  if (options === undefined || options === null) return null;
  if (typeof options !== "object" || Array.isArray(options)) throw refuse("stream_options", options, "an object");
  return { ...options };
}

/** `max_completion_tokens` is OpenAI's newer name for `max_tokens`; the larger one counts where both are given. */
function readMaxTokens(value: Readonly<Record<string, unknown>>): number | null {
  const older = readCount("max_tokens", value.max_tokens, maxTokensCeiling);
  const newer = readCount("max_completion_tokens", value.max_completion_tokens, maxTokensCeiling);
  return older === null ? newer : Math.max(older, newer ?? 0);
}

function readCount(param: string, value: unknown, max: number): number | null {
  if (value === undefined || value === null) return null;
  if (typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= max) return value;
  throw refuse(param, value, `a whole number from 1 to ${max}`);
}

function refuse(param: string, got: unknown, expected: string): AppError {
  return new AppError("invalid_request", { param, message: `${param} must be ${expected}, not ${kindOf(got)}.` });
}

/** Names a value's kind, never the value: it may be long, or a secret. */
function kindOf(value: unknown): string {
  if (value === undefined) return "absent";
  if (value === null) return "null";
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (value === "") return "an empty text";
  if (typeof value === "number") return `the number ${value}`;
  return { string: "a text", boolean: "a boolean", object: "an object" }[typeof value as string] ?? typeof value;
}
