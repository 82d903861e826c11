import { AppError } from "../../errors.ts";
import { isModelName, maxNameLength } from "../../lib/globs.ts";
import type { JsonObject } from "../../lib/json-object.ts";
import { findDisguised } from "../../lib/key-disguise.ts";
import { extraParams } from "../unpriced-extras.ts";

/** Most output tokens that a request may set; far above any model's limit. */
const maxTokensCeiling = 10_000_000;

/** The fields that the proxy reads or replaces in a request of any API, and those that decide its price. */
const readKeys: ReadonlySet<string> = new Set([
  "model",
  "messages",
  "prompt",
  "input",
  "system",
  "stream",
  "stream_options",
  "n",
  "best_of",
  "max_tokens",
  "max_completion_tokens",
  "max_output_tokens",
  "store",
  "previous_response_id",
  "conversation",
  "background",
  ...extraParams,
]);
const readStreamOptionKeys: ReadonlySet<string> = new Set(["include_usage"]);
const readMessageKeys: ReadonlySet<string> = new Set(["role", "content", "prefix"]);

type Value = JsonObject["value"];

/** The model of a request, after checking that no key is disguised. All checks throw AppError invalid_request (400). */
export function readModel(value: Value): string {
  refuseDisguised(value, readKeys);
  const { model } = value;
  if (isModelName(model)) return model;
  throw refuse("model", model, `a model name of 1 to ${maxNameLength} whole characters`);
}

export function readStream({ stream }: Value): boolean | null {
  if (stream === undefined || stream === null) return null;
  if (typeof stream === "boolean") return stream;
  throw refuse("stream", stream, "true or false");
}

export function readStreamOptions({ stream_options: options }: Value): Readonly<Record<string, unknown>> | null {
  if (options === undefined || options === null) return null;
  if (typeof options !== "object" || Array.isArray(options)) throw refuse("stream_options", options, "an object");
  refuseDisguised(options as Value, readStreamOptionKeys, "stream_options.");
  return { ...options };
}

export function checkMessages({ messages }: Value): void {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw refuse("messages", messages, "a list of at least one message");
  }
  for (let i = 0; i < messages.length; i++) {
    const message: unknown = messages[i];
    if (typeof message !== "object" || message === null || Array.isArray(message)) {
      throw refuse(`messages.${i}`, message, "an object with role and content");
    }
    refuseDisguised(message as Value, readMessageKeys, `messages.${i}.`);
    if (!("role" in message) || typeof message.role !== "string") {
      throw refuse(`messages.${i}.role`, "role" in message ? message.role : undefined, "a text such as user");
    }
  }
}

/** Counts the prompts in a text, or in a list of texts or token numbers. */
export function countPrompts(param: string, prompt: unknown): number {
  if (typeof prompt === "string") return 1;
  if (!Array.isArray(prompt) || prompt.length === 0) throw refuse(param, prompt, "a text or a list of texts");
  // A list of numbers is one prompt in tokens.
  return typeof prompt[0] === "number" ? 1 : prompt.length;
}

/** The number of output tokens in a field; null if it is absent. */
export function readTokens(value: Value, param: string): number | null {
  return readCount(value, param, maxTokensCeiling);
}

export function readCount(value: Value, param: string, max: number): number | null {
  const count = value[param];
  if (count === undefined || count === null) return null;
  if (typeof count === "number" && Number.isInteger(count) && count >= 1 && count <= max) return count;
  throw refuse(param, count, `a whole number from 1 to ${max}`);
}

/**
 * Rejects keys that a server could take for one of `names`. Many servers ignore case in keys: they would take `MODEL`
 * for the model and run another request than the one that was checked and is billed.
 */
function refuseDisguised(value: Value, names: ReadonlySet<string>, path = ""): void {
  const found = findDisguised(value, names);
  if (found === undefined) return;
  const { key, name } = found;
  throw new AppError("invalid_request", {
    param: path + key,
    message: `${JSON.stringify(path + key)} can be taken for ${path}${name}: write it like that, or leave it out.`,
  });
}

export function refuse(param: string, got: unknown, expected: string): AppError {
  return new AppError("invalid_request", { param, message: `${param} must be ${expected}, not ${kindOf(got)}.` });
}

/** Describes the kind of a value, never the value itself: it may be long, or a secret. */
function kindOf(value: unknown): string {
  if (value === undefined) return "absent";
  if (value === null) return "null";
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (value === "") return "an empty text";
  if (typeof value === "number") return `the number ${value}`;
  return { string: "a text", boolean: "a boolean", object: "an object" }[typeof value as string] ?? typeof value;
}
