import type { JsonObject } from "../lib/json-object.ts";
import type { Router } from "../providers/router.ts";
import { checkMessages, readModel } from "./formats/request-checks.ts";

/** What an image comes to, roughly, however many bytes it has. */
const tokensOfImage = 1_600;

/**
 * Guesses how many tokens a prompt in Anthropic's shape has, by the same rule as a charge where a provider reports
 * nothing, but for images and other files: clients decide by it when to shorten a conversation.
 */
export type CountTokens = (body: JsonObject) => number;

/**
 * @param bytesPerToken quota.estimate_bytes_per_token
 * @returns a function that throws AppError invalid_request, or model_not_found
 */
export function createCountTokens(router: Router, bytesPerToken: number): CountTokens {
  return (body) => {
    const { value } = body;
    router.resolve(readModel(value), "messages");
    checkMessages(value);
    const files = { count: 0, bytes: 0 };
    addFiles(value.messages, files);
    return Math.ceil((body.bytes.length - files.bytes) / bytesPerToken) + files.count * tokensOfImage;
  };
}

/** Adds what is in base64 in messages, or in the results of tools in them. */
function addFiles(list: unknown, files: { count: number; bytes: number }): void {
  if (!Array.isArray(list)) return;
  for (const entry of list as readonly unknown[]) {
    if (typeof entry !== "object" || entry === null) continue;
    if ("content" in entry) addFiles(entry.content, files);
    const source = "source" in entry ? entry.source : null;
    if (typeof source !== "object" || source === null || !("data" in source) || !("type" in source)) continue;
    if (source.type !== "base64" || typeof source.data !== "string") continue;
    files.count++;
    files.bytes += source.data.length;
  }
}
