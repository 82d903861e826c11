import type { ReportedUsage } from "./provider.ts";

/** What one event of an answer says beyond its text. */
export interface ChunkFacts {
  readonly usage: ReportedUsage | null;
  /** The first non-null finish_reason among the choices. */
  readonly finishReason: string | null;
  /** OpenAI's extra chunk: usage and `choices: []`. */
  readonly usageOnly: boolean;
  /** `error.code` or `error.type`, and the message, where the event is an error. */
  readonly error: { readonly code: string; readonly message: string } | null;
}

/**
 * Whether the event may hold facts and is worth parsing. Most are one token of text with `"usage":null` and
 * `"finish_reason":null`, and cost three native searches instead of a JSON.parse. Inside a JSON string the quotes
 * would be escaped, so `"usage"` in the bytes can only be a key or a string of its own.
 */
export function mayHoldFacts(json: string): boolean {
  return hasValue(json, '"finish_reason"') || hasValue(json, '"usage"') || hasValue(json, '"error"');
}

function hasValue(json: string, key: string): boolean {
  for (let at = json.indexOf(key); at !== -1; at = json.indexOf(key, at)) {
    at = skipSpace(json, at + key.length);
    if (json.charCodeAt(at) !== 0x3a) continue;
    at = skipSpace(json, at + 1);
    if (!json.startsWith("null", at)) return true;
  }
  return false;
}

function skipSpace(json: string, from: number): number {
  let at = from;
  while (json.charCodeAt(at) <= 0x20) at++;
  return at;
}

/** Reads the facts of a parsed event; null where it isn't a JSON object. */
export function readChunkFacts(chunk: unknown): ChunkFacts | null {
  if (!isRecord(chunk)) return null;
  const choices = chunk.choices;
  return {
    usage: readUsage(chunk.usage),
    finishReason: Array.isArray(choices) ? readFinishReason(choices) : null,
    usageOnly: Array.isArray(choices) && choices.length === 0 && isRecord(chunk.usage),
    error: readError(chunk.error),
  };
}

function readFinishReason(choices: readonly unknown[]): string | null {
  for (const choice of choices) {
    if (isRecord(choice) && typeof choice.finish_reason === "string") return choice.finish_reason;
  }
  return null;
}

/**
 * Reads a provider's `usage` object. Zero is zero; null only where the totals are missing or not whole numbers.
 * DeepSeek tells cache hits in `prompt_cache_hit_tokens`, OpenAI in `prompt_tokens_details.cached_tokens`.
 */
function readUsage(usage: unknown): ReportedUsage | null {
  if (!isRecord(usage)) return null;
  const input = usage.prompt_tokens;
  const output = usage.completion_tokens;
  if (!isCount(input) || !isCount(output)) return null;
  const cached = usage.prompt_cache_hit_tokens ?? detail(usage.prompt_tokens_details, "cached_tokens");
  const reasoning = detail(usage.completion_tokens_details, "reasoning_tokens");
  return {
    input,
    output,
    // A part can't be more than its whole, whatever the provider says.
    cached: isCount(cached) ? Math.min(cached, input) : 0,
    reasoning: isCount(reasoning) ? Math.min(reasoning, output) : 0,
  };
}

/** Reads `error` as providers write it: an object, or sometimes bare text. */
export function readError(error: unknown): ChunkFacts["error"] {
  if (typeof error === "string" && error !== "") return { code: "", message: error };
  if (!isRecord(error)) return null;
  const code = error.code ?? error.type;
  return {
    code: typeof code === "string" || typeof code === "number" ? String(code) : "",
    message: typeof error.message === "string" ? error.message : "",
  };
}

function detail(details: unknown, key: string): unknown {
  return isRecord(details) ? details[key] : undefined;
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
