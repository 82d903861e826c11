import { cannedCompletion, toolCallCompletion, type Completion } from "./completion.ts";
import { badGatewayPage, missingKey, refuse, refuseLikeZhipu, type Refusal } from "./refusals.ts";
import type { SimRequest } from "./request.ts";
import type { Dialect, UsageMode } from "./chat-wire.ts";
import { quirks, type Script, type ScriptRequest } from "./quirks.ts";

/** When the events of a response are sent. */
export interface Pace {
  /** ms with `: keep-alive` comments only; Infinity never ends. */
  readonly queueMs: number;
  /** ms from the end of the queue to the first event. */
  readonly firstTokenMs: number;
  /** 0 sends all that is left at once. */
  readonly tokensPerSecond: number;
}

/** What a model does differently. An absent field means normal behaviour, as DeepSeek's. */
export interface Scenario {
  /** Sends this error instead of a completion. */
  readonly refusal?: (argument: number | undefined) => Refusal;
  /** Sends no response: resets the connection, or keeps it open in silence. */
  readonly connection?: "reset" | "silent";
  /** Sends this, streamed or not. */
  readonly script?: (request: ScriptRequest) => Script;
  readonly completion?: (request: SimRequest) => Completion;
  readonly dialect?: Dialect;
  readonly usageMode?: UsageMode;
  /** Share of the prompt that comes from the cache, in whole blocks of 64 tokens. */
  readonly cachedShare?: number;
  readonly pace?: (argument: number | undefined) => Partial<Pace>;
  /** Alters the finished events. Each is a complete SSE event with its blank line; `error` is an error event. */
  readonly alter?: (events: readonly string[], argument: number | undefined, error: string) => readonly string[];
  /** What follows the last event; a stall sends comments for ever. */
  readonly ending?: "end" | "reset" | "stall";
  /** Sends every byte in a separate write. */
  readonly bytewise?: true;
}

/**
 * The models that reproduce failures of real providers. `:N` may follow the name; the meaning of N is given last, with
 * its default. Differences of single providers are among the quirks.
 *
 * | model | what happens |
 * |---|---|
 * | sim-429 | 429 with Retry-After; N seconds (1) |
 * | sim-400 sim-422 sim-500 sim-503 | that status with DeepSeek's JSON body |
 * | sim-401 | 401 in plain text |
 * | sim-402 | 402 Insufficient Balance |
 * | sim-html | 502 with nginx's HTML page |
 * | sim-zhipu-error | Zhipu's error body; N is its code (1305) |
 * | sim-reset | the connection is reset before any header |
 * | sim-silent | the request is read, nothing ever comes back |
 * | sim-empty | 200, then the end |
 * | sim-reset-mid | reset after N events (half of them) |
 * | sim-truncate | a clean end after N events (half), without finish_reason and [DONE] |
 * | sim-no-done | finish_reason and usage, no [DONE] |
 * | sim-done-only | [DONE] without finish_reason and usage |
 * | sim-stall | N events (half), then keep-alive comments for ever |
 * | sim-stall-first | keep-alive comments for ever |
 * | sim-queue | keep-alive comments for N ms (3000), then the answer |
 * | sim-slow | N tokens a second (4) |
 * | sim-error-event | an error event after N events (half), then the end |
 * | sim-error-first | an error event as the first event, then the end |
 * | sim-bad-json | an event that is not JSON after N events (half), then the rest |
 * | sim-crlf | lines end in CRLF |
 * | sim-nospace | no space after `data:` |
 * | sim-bytes | a short answer, one byte per write |
 * | sim-usage-after | OpenAI's dialect: usage in a chunk of its own, if asked for |
 * | sim-zhipu | Zhipu's dialect |
 * | sim-no-usage sim-zero-usage | usage is null; usage says 0 |
 * | sim-cumulative | usage so far on every chunk |
 * | sim-cached | half of the prompt is a cache hit |
 * | sim-insufficient | finish_reason insufficient_system_resource half way |
 * | sim-huge-event | one event with N bytes of content (1 MiB) |
 * | sim-tools | calls a tool, the client's first or get_weather |
 * | sim-big-tools | the same with N bytes of arguments (65536) |
 * | sim-long | N tokens (10000) without pacing |
 * | sim-burst | N tokens (98: 100 data events and [DONE]) at once |
 * | sim-fast | a short answer at once |
 * | sim-paced | max_tokens (200) tokens at N a second (20), the first at once |
 */
export const scenarios: ReadonlyMap<string, Scenario> = new Map<string, Scenario>([
  ["sim-400", { refusal: () => refuse(400, "invalid_request_error", "Invalid Format") }],
  ["sim-401", { refusal: () => missingKey }],
  ["sim-402", { refusal: () => refuse(402, "unknown_error", "Insufficient Balance") }],
  ["sim-422", { refusal: () => refuse(422, "invalid_request_error", "Invalid Parameters") }],
  ["sim-429", { refusal: rateLimited }],
  ["sim-500", { refusal: () => refuse(500, "server_error", "Internal Server Error") }],
  ["sim-503", { refusal: () => refuse(503, "service_unavailable_error", "Service is too busy") }],
  ["sim-html", { refusal: () => badGatewayPage }],
  ["sim-zhipu-error", { refusal: (code = 1305) => refuseLikeZhipu(code) }],
  ["sim-reset", { connection: "reset" }],
  ["sim-silent", { connection: "silent" }],
  ["sim-empty", { alter: () => [] }],
  ["sim-reset-mid", { alter: keep, ending: "reset" }],
  ["sim-truncate", { alter: keep }],
  ["sim-no-done", { alter: (events) => events.slice(0, -1) }],
  ["sim-done-only", { alter: (events) => [...events.slice(0, -2), ...events.slice(-1)] }],
  ["sim-stall", { alter: keep, ending: "stall" }],
  ["sim-stall-first", { pace: () => ({ queueMs: Infinity }) }],
  ["sim-queue", { pace: (ms = 3000) => ({ queueMs: ms }) }],
  ["sim-slow", { pace: (tokensPerSecond = 4) => ({ tokensPerSecond }) }],
  ["sim-error-event", { alter: (events, count, error) => [...keep(events, count), error] }],
  ["sim-error-first", { alter: (_events, _count, error) => [error] }],
  ["sim-bad-json", { alter: insertGarbage }],
  ["sim-crlf", { alter: (events) => events.map((event) => event.replaceAll("\n", "\r\n")) }],
  ["sim-nospace", { alter: (events) => events.map((event) => event.replace("data: ", "data:")) }],
  ["sim-bytes", { completion: (request) => cannedCompletion(10, request), bytewise: true }],
  ["sim-usage-after", { dialect: "openai" }],
  ["sim-zhipu", { dialect: "zhipu" }],
  ["sim-no-usage", { usageMode: "none" }],
  ["sim-zero-usage", { usageMode: "zero" }],
  ["sim-cumulative", { usageMode: "cumulative" }],
  ["sim-cached", { cachedShare: 0.5 }],
  ["sim-insufficient", { completion: outOfResources }],
  ["sim-huge-event", { completion: hugeCompletion }],
  ["sim-tools", { completion: (request) => toolCallCompletion(request) }],
  ["sim-big-tools", { completion: (request) => toolCallCompletion(request, request.argument ?? 65_536) }],
  ["sim-long", { completion: (request) => cannedCompletion(request.argument ?? 10_000, request), pace: atOnce }],
  ["sim-burst", { completion: (request) => cannedCompletion(request.argument ?? 98, request), pace: atOnce }],
  ["sim-fast", { completion: (request) => cannedCompletion(10, request), pace: atOnce }],
  ["sim-paced", { completion: (request) => cannedCompletion(request.maxTokens ?? 200, request), pace: steady }],
  ...[...quirks].map(([name, script]): [string, Scenario] => [name, { script }]),
]);

const maxHugeBytes = 64 << 20;

function rateLimited(seconds = 1): Refusal {
  const message =
    "Your account has reached the concurrency limit of 500 for this model, which scales with your balance. Please try again later.";
  return refuse(429, "rate_limit_reached_error", message, { "retry-after": String(seconds) });
}

function keep(events: readonly string[], count = Math.ceil(events.length / 2)): readonly string[] {
  return events.slice(0, count);
}

function insertGarbage(events: readonly string[], count?: number): readonly string[] {
  const before = keep(events, count);
  return [...before, 'data: {"choices":[{"delta":{"content":"cut in the mid\n\n', ...events.slice(before.length)];
}

function outOfResources(request: SimRequest): Completion {
  return { ...cannedCompletion(20, request), finishReason: "insufficient_system_resource" };
}

function hugeCompletion(request: SimRequest): Completion {
  const bytes = Math.min(request.argument ?? 1 << 20, maxHugeBytes);
  return { ...cannedCompletion(1, request), content: ["x".repeat(bytes)], finishReason: "stop" };
}

function atOnce(): Partial<Pace> {
  return { queueMs: 0, firstTokenMs: 0, tokensPerSecond: 0 };
}

function steady(tokensPerSecond = 20): Partial<Pace> {
  return { queueMs: 0, firstTokenMs: 0, tokensPerSecond };
}
