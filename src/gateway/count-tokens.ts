import type { JsonObject } from "../lib/json-object.ts";
import type { Router } from "../providers/router.ts";
import { checkMessages, readModel } from "./formats/request-checks.ts";

/** A rough estimate for an image of any size. */
const tokensOfImage = 1_600;

/**
 * Estimates how many tokens a prompt in Anthropic's format has. The rule is that of a charge without reported usage,
 * except for images and other files. Clients use the number to decide when to shorten a conversation.
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

/** Adds the base64 files in messages and in tool results inside them. */
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
