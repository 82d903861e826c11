import { z } from "zod";
import { AppError, errorBody } from "../../errors.ts";
import { type JsonObject, replaceMembers } from "../../lib/json-object.ts";
import { UpstreamError } from "../../providers/upstream-error.ts";
import type { ApiFormat, ClientStream, Collector } from "./api-format.ts";
import { asIndex, emptyFields, type Fields, isFields, UnmergeableError } from "./merge-fields.ts";
import { openaiWire } from "./openai-wire.ts";
import { readModel, readStream, readTokens, refuse } from "./request-checks.ts";
import * as parts from "./schema-parts.ts";

type Value = JsonObject["value"];

const requestSchema = z
  .looseObject({
    model: parts.model,
    input: z
      .union([z.string(), z.array(z.looseObject({})).min(1)])
      .describe("A text, or the items of the whole conversation."),
    instructions: z.string().nullish(),
    max_output_tokens: parts.maxTokens,
    stream: parts.streams,
    store: z.literal(false).nullish().describe("Responses are not kept: the accounts are shared."),
  })
  .meta({
    description: "An OpenAI Responses request. Fields that are not named here are passed on as they are.",
    examples: [
      { model: "deepseek-v4-pro", input: "Say hello." },
      { model: "deepseek-v4-pro", input: "Say hello.", stream: true },
    ],
  });

const responseSchema = z.looseObject({
  id: z.string(),
  object: z.literal("response"),
  created_at: z.number(),
  model: z.string(),
  status: z.string(),
  output: z.array(z.looseObject({ type: z.string() })),
  usage: z.looseObject({ input_tokens: z.number(), output_tokens: z.number() }).nullish(),
});

/** OpenAI's Responses API. Nothing is kept between two requests: each has the whole conversation. */
export const responses: ApiFormat = {
  ...openaiWire,
  routes: [{ summary: "Responses (as OpenAI does them)", paths: ["/v1/responses", "/responses"] }],
  requestSchema,
  responseSchema,
  streams:
    "`response.created`, `response.output_text.delta` and their like, each with `data: ` and its JSON, the last one " +
    "`response.completed`. Where the answer breaks off, the last one is `response.failed`.",
  refusesWebSocket: true,
  parse(body, streamByDefault) {
    const { value } = body;
    const model = readModel(value);
    refuseKeptState(value);
    checkInput(value);
    const stream = readStream(value) ?? streamByDefault;
    return {
      api: "responses",
      model,
      stream,
      collects: !stream,
      wantsUsageChunk: false,
      maxTokens: readTokens(value, "max_output_tokens"),
      choices: 1,
      bytes: body.bytes.length,
      canDropStreamOptions: () => false,
      bodyFor: (upstreamModel, { keepsResponses }, asWhole = false) =>
        replaceMembers(body, {
          ...((value.stream === true) === asWhole ? { stream: String(!asWhole) } : {}),
          ...(model === upstreamModel ? {} : { model: JSON.stringify(upstreamModel) }),
          // Whoever knows its id could read a response that was kept in the shared account.
          ...(keepsResponses && value.store !== false ? { store: "false" } : {}),
        }),
    };
  },
  createCollector: () => new ResponseCollector(),
  startStream: (model, at) => new ResponseStream(model, at),
  // Codex repeats a 402 five times, and a 429 of this type never. Others would wait for what Retry-After says.
  adaptError: (error) =>
    error.status === 402
      ? new AppError(error.code, {
          ...error.extras,
          message: error.message,
          status: 429,
          shouldRetry: false,
          retryAfterSeconds: null,
        })
      : error,
  failsAsStream: isProviderFailure,
};

/** Fields that refer to what a provider keeps, or ask it to keep something, in an account that many people share. */
const keptState: readonly (readonly [string, string])[] = [
  ["previous_response_id", "Send the whole conversation in input."],
  ["conversation", "Send the whole conversation in input."],
  ["store", "Set it to false, or leave it out."],
  ["background", "Set it to false, or leave it out."],
  ["prompt", "Send its text in instructions or input."],
];

/** @throws AppError invalid_request */
function refuseKeptState(value: Value): void {
  for (const [param, remedy] of keptState) {
    const given = value[param];
    if (given !== undefined && given !== null && given !== false) throw notKept(param, remedy);
  }
}

/** @throws AppError invalid_request */
function checkInput({ input }: Value): void {
  if (typeof input === "string") return;
  if (!Array.isArray(input) || input.length === 0)
    throw refuse("input", input, "a text or a list of at least one item");
  for (let i = 0; i < input.length; i++) {
    const item: unknown = input[i];
    if (!isFields(item)) throw refuse(`input.${i}`, item, "an object");
    if (isReference(item)) throw notKept(`input.${i}`, "Send the item itself instead of its id.");
  }
}

/** Whether an item stands for one that the provider has kept; `type` may be left out. */
function isReference({ type, role, id }: Readonly<Fields>): boolean {
  if (type === undefined || type === null) return id !== undefined && id !== null && role === undefined;
  return typeof type === "string" && type.toLowerCase() === "item_reference";
}

function notKept(param: string, remedy: string): AppError {
  const message = `${param} is not supported: nothing is kept between requests, since many people share the accounts. ${remedy}`;
  return new AppError("invalid_request", { param, message });
}

/** Whether no provider could serve the request, after all retries of the proxy. */
function isProviderFailure({ status, extras: { cause } }: AppError): boolean {
  return cause instanceof UpstreamError && status >= 500;
}

const comment = Buffer.from(": keep-alive\n\n");
const commentAfterIds = Buffer.from(": keep-alive\n");
const nothing: Buffer = Buffer.alloc(0);
const numberKey = Buffer.from('"sequence_number":');

/** Says the proxy's part in the events of the API, which name their response and count on from the provider's. */
class ResponseStream implements ClientStream {
  /** A complete stream ends with the provider's own last event. */
  readonly ending = nothing;
  readonly #model: string;
  readonly #at: number;
  /** What identifies the response, from its first event; null until then. */
  #begun: Fields | null = null;
  #written = nothing;

  constructor(model: string, at: number) {
    this.#model = model;
    this.#at = at;
  }

  onEvent(parsed: unknown): void {
    if (this.#begun !== null || !isFields(parsed) || !isFields(parsed.response)) return;
    const { id, object, created_at, model } = parsed.response;
    this.#begun = { id, object, created_at, model };
  }

  onWrite(events: Buffer): void {
    this.#written = events;
  }

  /** A comment doesn't keep Codex from giving up, but OpenAI's SDKs fail on any event before `response.created`. */
  heartbeat(hasIds: boolean): Buffer {
    if (this.#begun === null) return hasIds ? commentAfterIds : comment;
    return Buffer.from(this.#event("in_progress", this.#lastNumber(), this.#begun));
  }

  errorEvent(error: AppError, traceId: string): string {
    const number = this.#begun === null ? 0 : this.#lastNumber() + 1;
    const response = this.#begun ?? {
      id: `resp_${traceId}`,
      object: "response",
      created_at: Math.floor(this.#at / 1000),
      model: this.#model,
    };
    const failed = {
      ...response,
      status: "failed",
      error: { ...errorBody(error, traceId).error, code: this.#codeOf(error), proxy_code: error.code },
    };
    if (this.#begun !== null) return this.#event("failed", number, failed);
    return this.#event("created", number, response) + this.#event("failed", number + 1, failed);
  }

  /** A code that Codex doesn't answer with the same request again, where that would be of no use. */
  #codeOf(error: AppError): string {
    if (error.type === "insufficient_quota") return "insufficient_quota";
    if (this.#begun === null && isProviderFailure(error)) return "server_is_overloaded";
    return error.extras.shownCode ?? error.code;
  }

  #event(name: string, sequence_number: number, response: Readonly<Fields>): string {
    const type = `response.${name}`;
    const whole = {
      status: "in_progress",
      output: [],
      error: null,
      incomplete_details: null,
      usage: null,
      ...response,
    };
    return `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number, response: whole })}\n\n`;
  }

  /** The number of the last event that was written; 0 if it has none. */
  #lastNumber(): number {
    const at = this.#written.lastIndexOf(numberKey);
    if (at === -1) return 0;
    const start = at + numberKey.length;
    return Number.parseInt(this.#written.toString("latin1", start, start + 16), 10) || 0;
  }
}

/** An item of the output as far as it has arrived. */
interface OpenItem {
  readonly fields: Fields;
  /** The list or field that a part belongs to, with its index -> the part's text. */
  readonly texts: Map<string, { readonly place: Place; text: string }>;
}

/** Where the text of a delta belongs in its item. */
interface Place {
  readonly key: "content" | "summary" | "arguments" | "input";
  /** Type of the part, for lists. */
  readonly type?: string;
  readonly textKey?: string;
}

const places: ReadonlyMap<unknown, Place> = new Map<unknown, Place>([
  ["response.output_text.delta", { key: "content", type: "output_text" }],
  ["response.reasoning_text.delta", { key: "content", type: "reasoning_text" }],
  ["response.refusal.delta", { key: "content", type: "refusal", textKey: "refusal" }],
  ["response.reasoning_summary_text.delta", { key: "summary", type: "summary_text" }],
  ["response.function_call_arguments.delta", { key: "arguments" }],
  ["response.custom_tool_call_input.delta", { key: "input" }],
]);

/**
 * Collects the events into the one JSON: the `response` of the last event. Items that it doesn't repeat are taken from
 * the events before it.
 */
export class ResponseCollector implements Collector {
  #response = emptyFields();
  readonly #items = new Map<number, OpenItem>();
  /** Whether a delta belonged to no item: only a last event that has the whole output makes up for it. */
  #hasStray = false;

  add(parsed: unknown): void {
    if (!isFields(parsed)) throw new UnmergeableError("an event is not an object");
    const { type, response, item, delta } = parsed;
    if (isFields(response)) this.#response = response;
    const index = asIndex(parsed.output_index) ?? 0;
    if (isFields(item)) this.#items.set(index, { fields: item, texts: new Map() });
    const place = places.get(type);
    if (place !== undefined && typeof delta === "string") this.#append(index, place, parsed, delta);
  }

  body(): string {
    const { output } = this.#response;
    const isWhole = Array.isArray(output) && (output.length > 0 || (this.#items.size === 0 && !this.#hasStray));
    if (isWhole) return JSON.stringify(this.#response);
    if (this.#hasStray) throw new UnmergeableError("a delta belongs to an item that has not begun");
    return JSON.stringify({ ...this.#response, output: this.#output() });
  }

  partial(): string {
    return JSON.stringify({ ...this.#response, status: "incomplete", output: this.#output() });
  }

  #append(index: number, place: Place, event: Readonly<Fields>, delta: string): void {
    const item = this.#items.get(index);
    if (item === undefined) {
      this.#hasStray = true;
      return;
    }
    const part = `${place.key} ${asIndex(event.content_index) ?? asIndex(event.summary_index) ?? 0}`;
    const known = item.texts.get(part);
    if (known === undefined) item.texts.set(part, { place, text: delta });
    else known.text += delta;
  }

  #output(): readonly Fields[] {
    return [...this.#items].sort(([a], [b]) => a - b).map(([, item]) => itemOf(item));
  }
}

function itemOf({ fields, texts }: OpenItem): Fields {
  const item = { ...fields };
  const lists = new Map<string, unknown[]>();
  for (const { place, text } of texts.values()) {
    const { key, type, textKey = "text" } = place;
    if (type === undefined) {
      item[key] = text;
      continue;
    }
    let list = lists.get(key);
    if (list === undefined) {
      list = Array.isArray(item[key]) ? [...(item[key] as unknown[])] : [];
      lists.set(key, (item[key] = list));
    }
    list.push({ type, [textKey]: text });
  }
  return item;
}
