import { gzipSync } from "node:zlib";

/** A response that is given byte for byte. */
export interface Script {
  /** HTTP status; default 200. */
  readonly status?: number;
  /** Default: an event stream. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: string | Buffer;
  /** Sent a moment after the body. */
  readonly late?: string;
  /** What follows the body; a stall sends comments for ever. */
  readonly ending?: "end" | "reset" | "stall";
}

/** The parts of a request that a script may depend on. */
export interface ScriptRequest {
  readonly model: string;
  /** Whether the request had `stream_options`. */
  readonly hasStreamOptions: boolean;
}

type Quirk = (request: ScriptRequest) => Script;

/**
 * Models that reproduce observed differences between other providers and DeepSeek: each says "Hello there." in 4 tokens
 * to a prompt of 10 tokens, or fails like its provider.
 *
 * | model | what happens |
 * |---|---|
 * | sim-mistral-parts | content as typed parts, `thinking` and `text`, then as text |
 * | sim-mistral-options | 422 for `stream_options`; without them an answer |
 * | sim-empty-finish | finish_reason "" in every chunk but the last; sim-empty-finish-cut ends without the last |
 * | sim-ollama-tools | two tool calls at index 0, with ids |
 * | sim-ollama-error | 400 with an error that is text |
 * | sim-gemini-tools | two tool calls without an index, with empty ids |
 * | sim-vllm-empty-tools | an empty list of tool calls in every delta |
 * | sim-moonshot-usage | usage in the choice that finishes |
 * | sim-xai-reasoning | 80 tokens of reasoning beside completion_tokens, within total_tokens |
 * | sim-voyage | embeddings whose usage is total_tokens alone (21) |
 * | sim-openrouter-error | a chunk with a numeric error code (502) in mid-stream |
 * | sim-openrouter-refusal | a first event with the error code 400 |
 * | sim-openrouter-moderation | 403 for a flagged prompt |
 * | sim-openrouter-reasoning | comments, and reasoning_details with an index |
 * | sim-groq-tool | `event: error` with status_code 400 and failed_generation |
 * | sim-groq-tool-late | the same after a delta |
 * | sim-fastapi-list sim-fastapi-text | 422 with `detail` as a list; 400 with `detail` as text |
 * | sim-empty-data | empty `data:` lines as keep-alives before, between and after all events |
 * | sim-comments | comments before, between and after all events |
 * | sim-whole-json | one JSON, though a stream was asked for |
 * | sim-whole-message | the same as Anthropic's message |
 * | sim-ids | `id:` lines |
 * | sim-loud-type sim-text-type sim-binary-type | Text/Event-Stream; text/plain; application/octet-stream |
 * | sim-gzip | gzip, though identity was asked for |
 * | sim-done-space | `data: [DONE] ` with a space behind it; sim-bye: a farewell in plain text |
 * | sim-finish-stall sim-finish-reset sim-finish-open | after finish_reason and usage: comments for ever; a reset; no blank line |
 * | sim-html-200 | a page under 200 |
 * | sim-no-route | 404 that is not about the model |
 * | sim-azure-filter | a first chunk without choices, which tells of the prompt's filter |
 * | sim-padding | padding of random length in every chunk |
 * | sim-zhipu-sensitive sim-zhipu-window | other finish reasons of a whole answer |
 * | sim-zhipu-network | finish_reason network_error |
 * | sim-no-quota | 429 because the account is empty |
 * | sim-message-edits | Anthropic's message_delta with context_management |
 * | sim-message-no-stop sim-message-done | Anthropic's events without message_stop; with [DONE] in its place |
 */
export const quirks: ReadonlyMap<string, Quirk> = new Map<string, Quirk>([
  ["sim-mistral-parts", ({ model }) => stream(model, mistralParts, usage)],
  ["sim-mistral-options", (request) => (request.hasStreamOptions ? extraForbidden : normal(request))],
  ["sim-empty-finish", ({ model }) => sse([...halves(model, ""), end(model), done])],
  ["sim-empty-finish-cut", ({ model }) => sse(halves(model, ""))],
  ["sim-ollama-tools", ({ model }) => stream(model, ollamaTools, usage, "tool_calls")],
  ["sim-ollama-error", () => json(400, { error: "invalid options: temperature" })],
  ["sim-gemini-tools", ({ model }) => stream(model, geminiTools, usage, "tool_calls")],
  [
    "sim-vllm-empty-tools",
    ({ model }) =>
      stream(
        model,
        said.map((content) => ({ content, tool_calls: [] })),
        usage,
      ),
  ],
  ["sim-moonshot-usage", ({ model }) => sse([...halves(model), chunk(model, [{ ...last, usage }]), done])],
  ["sim-xai-reasoning", ({ model }) => stream(model, texts, xaiUsage)],
  ["sim-voyage", ({ model }) => json(200, { object: "list", data: [embedding], model, usage: { total_tokens: 21 } })],
  ["sim-openrouter-error", ({ model }) => ({ body: opening(model), late: providerGone(model) + done })],
  ["sim-openrouter-refusal", () => sse([event({ error: { code: 400, message: "too many images" }, user_id: "u" })])],
  ["sim-openrouter-moderation", () => json(403, { error: { code: 403, message: "input was flagged", metadata } })],
  ["sim-openrouter-reasoning", ({ model }) => commented(": OPENROUTER PROCESSING", stream(model, reasoning, usage))],
  ["sim-groq-tool", () => sse([failedTool])],
  ["sim-groq-tool-late", ({ model }) => ({ body: opening(model), late: failedTool })],
  ["sim-fastapi-list", () => json(422, { detail: [{ type: "less_than", loc: ["body", "top_p"], msg: "too large" }] })],
  ["sim-fastapi-text", () => json(400, { detail: "prompt of 70k tokens" })],
  ["sim-empty-data", (request) => commented("data:", normal(request))],
  ["sim-comments", (request) => commented(": ping", normal(request))],
  ["sim-whole-json", ({ model }) => json(200, wholeChat(model))],
  ["sim-whole-message", ({ model }) => json(200, wholeMessage(model))],
  ["sim-ids", (request) => numbered(normal(request))],
  ["sim-loud-type", (request) => typed("Text/Event-Stream; Charset=UTF-8", normal(request))],
  ["sim-text-type", (request) => typed("text/plain; charset=utf-8", normal(request))],
  ["sim-binary-type", (request) => typed("application/octet-stream", normal(request))],
  ["sim-gzip", (request) => zipped(normal(request))],
  ["sim-done-space", ({ model }) => sse([...halves(model), end(model), "data: [DONE] \n\n"])],
  ["sim-bye", ({ model }) => sse([...halves(model), end(model), "data: bye\n\n"])],
  ["sim-finish-stall", ({ model }) => sse([...halves(model), end(model)], "stall")],
  ["sim-finish-reset", ({ model }) => sse([...halves(model), end(model)], "reset")],
  ["sim-finish-open", ({ model }) => sse([...halves(model), end(model).trimEnd()])],
  ["sim-html-200", () => typed("text/html", { body: "<html><body>Log in</body></html>" })],
  ["sim-no-route", () => json(404, { error: { message: "no route /chat" } })],
  ["sim-azure-filter", ({ model }) => sse([promptFilter(model), ...halves(model), end(model), done])],
  ["sim-padding", ({ model }) => padded(model)],
  ["sim-zhipu-sensitive", ({ model }) => stream(model, texts, usage, "sensitive")],
  ["sim-zhipu-window", ({ model }) => stream(model, texts, usage, "model_context_window_exceeded")],
  ["sim-zhipu-network", ({ model }) => ({ body: opening(model), late: delta(model, {}, "network_error") + done })],
  ["sim-no-quota", () => json(429, { error: { message: "You exceeded your current quota", ...noQuota } })],
  ["sim-message-edits", ({ model }) => sse([...message(model, { context_management: { applied_edits: [] } }), stop])],
  ["sim-message-no-stop", ({ model }) => sse(message(model))],
  ["sim-message-done", ({ model }) => sse([...message(model), done])],
]);

const said = ["Hello ", "there."] as const;
const texts = said.map((content) => ({ content }));
const usage = { prompt_tokens: 10, completion_tokens: 4, total_tokens: 14 };
const last = { index: 0, delta: {}, finish_reason: "stop" };
const done = "data: [DONE]\n\n";
const stop = 'event: message_stop\ndata: {"type":"message_stop"}\n\n';

const part = (text: string) => ({ type: "text", text });
const mistralParts = [
  { content: [{ type: "thinking", thinking: [part("Greet")] }] },
  { content: [{ type: "thinking", thinking: [part(" them.")] }] },
  { content: [part("Hello ")] },
  { content: "there." },
];
const extraForbidden = json(422, {
  detail: [{ type: "extra_forbidden", loc: ["body", "stream_options"], msg: "Extra inputs are not permitted" }],
});
const ollamaTools = ["a", "b"].map((name) => ({
  tool_calls: [{ index: 0, id: `call_${name}`, type: "function", function: { name, arguments: "{}" } }],
}));
const geminiTools = [
  { tool_calls: ["a", "b"].map((name) => ({ id: "", type: "function", function: { name, arguments: "{}" } })) },
];
const xaiUsage = { ...usage, total_tokens: 94, completion_tokens_details: { reasoning_tokens: 80 } };
const embedding = { object: "embedding", index: 0, embedding: [0.5, -0.5] };
const metadata = { reasons: ["violence"], flagged_input: "..." };
const reasoning = [
  ...["Greet", " them."].map((text) => ({
    content: "",
    reasoning_details: [{ type: "reasoning.text", text, format: "anthropic-claude-v1", index: 0 }],
  })),
  { reasoning_details: [{ type: "reasoning.text", signature: "c2ln", format: "anthropic-claude-v1", index: 0 }] },
  ...texts,
];
const failedTool = `event: error\n${event({
  error: {
    message: "Failed to call a function",
    type: "invalid_request_error",
    code: "tool_use_failed",
    failed_generation: "<function=a>",
    status_code: 400,
  },
})}`;
const noQuota = { type: "insufficient_quota", param: null, code: "insufficient_quota" };

function event(data: object): string {
  return `data: ${JSON.stringify(data)}\n\n`;
}

function chunk(model: string, choices: readonly object[], rest: object = {}): string {
  return event({
    id: "chatcmpl-quirk",
    object: "chat.completion.chunk",
    created: 1_752_169_304,
    model,
    choices,
    ...rest,
  });
}

function delta(model: string, fields: object, finishReason: string | null = null, rest: object = {}): string {
  return chunk(model, [{ index: 0, delta: fields, finish_reason: finishReason }], rest);
}

/** The text in two chunks. */
function halves(model: string, finishReason: string | null = null): readonly string[] {
  return texts.map((each) => delta(model, each, finishReason));
}

function opening(model: string): string {
  return halves(model)[0] ?? "";
}

function end(model: string): string {
  return chunk(model, [last], { usage });
}

function sse(events: readonly string[], ending: Script["ending"] = "end"): Script {
  return { body: events.join(""), ending };
}

function stream(model: string, deltas: readonly object[], reported: object, finishReason = "stop"): Script {
  const events = deltas.map((each) => delta(model, each));
  return sse([...events, delta(model, {}, finishReason, { usage: reported }), done]);
}

function normal({ model }: ScriptRequest): Script {
  return stream(model, texts, usage);
}

function json(status: number, body: object): Script {
  return { status, headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}

function typed(contentType: string, script: Script): Script {
  return { ...script, headers: { "content-type": contentType } };
}

function zipped({ body }: Script): Script {
  return { headers: { "content-encoding": "gzip" }, body: gzipSync(body) };
}

/** Adds a line with a blank line before, between and after the events. */
function commented(line: string, { body }: Script): Script {
  const events = body.toString().split("\n\n");
  return { body: [line, ...events.flatMap((each) => (each === "" ? [] : [each, line])), ""].join("\n\n") };
}

function numbered({ body }: Script): Script {
  let id = 0;
  return { body: body.toString().replaceAll(/^data:/gm, () => `id: ${++id}\ndata:`) };
}

function providerGone(model: string): string {
  const error = { code: 502, message: "Provider disconnected unexpectedly" };
  return chunk(model, [{ index: 0, delta: { content: "" }, finish_reason: "error" }], { error });
}

function promptFilter(model: string): string {
  const content_filter_results = { hate: { filtered: false, severity: "safe" } };
  return chunk(model, [], { prompt_filter_results: [{ prompt_index: 0, content_filter_results }] });
}

function padded(model: string): Script {
  const obfuscation = "x8FqPz";
  return sse([
    ...texts.map((each) => delta(model, each, null, { obfuscation })),
    chunk(model, [last], { usage, obfuscation, p: "abcdefgh" }),
    done,
  ]);
}

function wholeChat(model: string): object {
  const choice = { index: 0, message: { role: "assistant", content: said.join("") }, finish_reason: "stop" };
  return { id: "chatcmpl-quirk", object: "chat.completion", created: 1_752_169_304, model, choices: [choice], usage };
}

function wholeMessage(model: string): object {
  return {
    ...messageHead(model),
    content: [part(said.join(""))],
    stop_reason: "end_turn",
    usage: { input_tokens: 10, output_tokens: 4 },
  };
}

function messageHead(model: string): object {
  return { id: "msg_quirk", type: "message", role: "assistant", model, stop_reason: null, stop_sequence: null };
}

/** Anthropic's events without the last one. */
function message(model: string, rest: object = {}): readonly string[] {
  const named = (type: string, fields: object) => `event: ${type}\n${event({ type, ...fields })}`;
  const start = { ...messageHead(model), content: [], usage: { input_tokens: 10, output_tokens: 1 } };
  return [
    named("message_start", { message: start }),
    named("content_block_start", { index: 0, content_block: part("") }),
    ...said.map((text) => named("content_block_delta", { index: 0, delta: { type: "text_delta", text } })),
    named("content_block_stop", { index: 0 }),
    named("message_delta", {
      delta: { stop_reason: "end_turn", stop_sequence: null },
      usage: { output_tokens: 4 },
      ...rest,
    }),
  ];
}
