import { z } from "zod";
import type { ApiFormat, ClientStream, Collector } from "./api-format.ts";
import { padding } from "./choices-collector.ts";
import { type AppError, errorBody } from "../../errors.ts";
import { replaceMembers } from "../../lib/json-object.ts";
import {
  asIndex,
  emptyFields,
  type Fields,
  fieldsOf,
  isFields,
  isNothing,
  itemsOf,
  jsonOf,
  Merge,
  UnmergeableError,
} from "./merge-fields.ts";
import { checkMessages, readModel, readStream, readTokens } from "./request-checks.ts";
import * as parts from "./schema-parts.ts";

const ping = Buffer.from('event: ping\ndata: {"type":"ping"}\n\n');

const messageStream: ClientStream = {
  ending: Buffer.from('event: message_stop\ndata: {"type":"message_stop"}\n\n'),
  // A ping has data, so it is safe after ids too.
  heartbeat: () => ping,
  errorEvent: (error, traceId) => `event: error\ndata: ${JSON.stringify(messageErrorBody(error, traceId))}\n\n`,
};

const requestSchema = z
  .looseObject({
    model: parts.model,
    messages: z.array(parts.chatMessage).min(1),
    max_tokens: parts.maxTokens,
    stream: parts.streams,
  })
  .meta({
    description: "An Anthropic Messages request. Fields that are not named here are passed on as they are.",
    examples: [
      { model: "deepseek-v4-pro", max_tokens: 100, messages: [{ role: "user", content: "Say hello." }] },
      { model: "deepseek-v4-pro", max_tokens: 100, messages: [{ role: "user", content: "Say hello." }], stream: true },
    ],
  });

const responseSchema = z.looseObject({
  id: z.string(),
  type: z.literal("message"),
  role: z.literal("assistant"),
  content: z.array(z.looseObject({ type: z.string() })),
  stop_reason: z.string().nullable(),
  usage: z.looseObject({ input_tokens: z.number(), output_tokens: z.number() }),
});

/** Anthropic's messages. */
export const messages: ApiFormat = {
  routes: [{ summary: "Chat in Anthropic's shape", paths: ["/anthropic/v1/messages", "/v1/messages"] }],
  requestSchema,
  responseSchema,
  streams:
    "`message_start`, `content_block_start`, `content_block_delta`, `content_block_stop`, `message_delta` and `message_stop`, " +
    "each with `data: ` and its JSON; `ping` keeps the connection open. Where the answer breaks off, the last one is `error`.",
  parse(body, streamByDefault) {
    const { value } = body;
    const model = readModel(value);
    checkMessages(value);
    const stream = readStream(value) ?? streamByDefault;
    return {
      api: "messages",
      model,
      stream,
      collects: !stream,
      wantsUsageChunk: false,
      maxTokens: readTokens(value, "max_tokens"),
      choices: 1,
      bytes: body.bytes.length,
      canDropStreamOptions: () => false,
      bodyFor: (upstreamModel, _takes, asWhole = false) =>
        replaceMembers(body, {
          ...((value.stream === true) === asWhole ? { stream: String(!asWhole) } : {}),
          ...(model === upstreamModel ? {} : { model: JSON.stringify(upstreamModel) }),
        }),
    };
  },
  createCollector: () => new MessageCollector(),
  startStream: () => messageStream,
  errorBody: messageErrorBody,
};

/** Anthropic's error types, by HTTP status. */
const errorTypes: ReadonlyMap<number, string> = new Map([
  [402, "billing_error"],
  [404, "not_found_error"],
  [413, "request_too_large"],
  [503, "overloaded_error"],
  [504, "timeout_error"],
]);

/** Anthropic's error format, with the extra fields of our own errors: `code`, `param`, `trace_id` and `details`. */
function messageErrorBody(error: AppError, traceId: string): object {
  const own = errorBody(error, traceId).error;
  const type = errorTypes.get(error.status) ?? own.type;
  return { type: "error", error: { ...own, type }, request_id: traceId };
}

/** A content block as far as it has arrived. */
interface Block {
  readonly index: number;
  readonly fields: Fields;
  /** Its start, as JSON. */
  readonly first: string;
  /** A tool's input, in fragments of JSON. */
  json: string;
  /** Whether a delta or the block's end has come: after that, a start at the same index is a new block. */
  begun: boolean;
}

/** Fields that only identify the event and its block. */
const framing: ReadonlySet<string> = new Set([
  "type",
  "index",
  "message",
  "delta",
  "usage",
  "content_block",
  ...padding,
]);
/** The start of a block whose start event is missing, by the type of its first delta. */
const initialBlocks: ReadonlyMap<unknown, Fields> = new Map([
  ["text_delta", { type: "text", text: "" }],
  ["thinking_delta", { type: "thinking", thinking: "", signature: "" }],
]);
/** Memory of a block, in values. */
const valuesOfBlock = 8;
/** Longest input of a tool, in characters of JSON. */
const maxJson = 16 << 20;

/**
 * Collects Anthropic's events into one message. `message_start` has the message without content, `message_delta` its
 * end and usage. The texts of a block are joined, and `partial_json` fragments become the block's `input`. If they are
 * not valid JSON, since max_tokens may cut a response, `input` is empty and the text is kept as `partial_json`. All
 * other fields are kept in the message, or in the block of their event.
 */
export class MessageCollector implements Collector {
  readonly #merge = new Merge();
  readonly #message = emptyFields();
  readonly #usage = emptyFields();
  readonly #blocks: Block[] = [];
  readonly #byIndex = new Map<number, Block>();
  #nextIndex = 0;

  add(parsed: unknown): void {
    if (!isFields(parsed)) throw new UnmergeableError("an event is not an object");
    switch (parsed.type) {
      case "message":
        // The whole message at once.
        this.#start(parsed);
        break;
      case "message_start":
        this.#start(fieldsOf("message", parsed.message));
        this.#keep(this.#message, parsed);
        this.#count(parsed.usage);
        break;
      case "message_delta":
        this.#keep(this.#message, fieldsOf("delta", parsed.delta));
        this.#keep(this.#message, parsed);
        this.#count(parsed.usage);
        break;
      case "content_block_start":
        this.#open(parsed.index, fieldsOf("content_block", parsed.content_block));
        this.#keepInBlock(parsed);
        break;
      case "content_block_delta":
        this.#append(parsed.index, fieldsOf("delta", parsed.delta));
        this.#keepInBlock(parsed);
        break;
      case "content_block_stop":
        this.#close(parsed);
    }
  }

  body(): string {
    return this.#json({});
  }

  partial(): string {
    return this.#json({ stop_reason: null, stop_sequence: null });
  }

  /** Assembled from pieces, because a tool's input is JSON already and its numbers must stay as they are. */
  #json(over: Fields): string {
    const blocks = [...this.#blocks].sort((a, b) => a.index - b.index).map(blockJson);
    const message = { type: "message", role: "assistant", stop_reason: null, ...this.#message, ...over };
    return jsonOf(message, `"content":[${blocks.join(",")}]`, `"usage":${JSON.stringify(this.#usage)}`);
  }

  #start(message: Fields | null): void {
    for (const key in message) {
      if (key === "usage") this.#count(message.usage);
      else if (key === "content") {
        for (const block of itemsOf(key, message.content)) this.#open(null, fieldsOf("a block", block));
      } else if (!padding.has(key)) this.#merge.keepLast(this.#message, key, message[key]);
    }
  }

  #keep(into: Fields, from: Fields | null): void {
    for (const key in from) if (!framing.has(key)) this.#merge.keepLast(into, key, from[key]);
  }

  #keepInBlock(event: Fields): void {
    const block = this.#blockAt(event.index);
    if (block !== undefined) this.#keep(block.fields, event);
  }

  #count(usage: unknown): void {
    const counts = fieldsOf("usage", usage);
    for (const key in counts) this.#merge.keepLast(this.#usage, key, counts[key]);
  }

  /** Begins a block. Ignores a repeated start of a block that has nothing else yet. */
  #open(given: unknown, content: Fields | null): void {
    if (content === null) return;
    const index = readIndex(given) ?? this.#nextIndex;
    const known = this.#byIndex.get(index);
    const first = JSON.stringify(content);
    if (known?.begun === false && known.first === first) return;
    this.#merge.count(valuesOfBlock);
    const fields = emptyFields();
    for (const key in content) {
      // Some servers send it here at once. It is the client's own data, whose lists are not fragments.
      if (key === "input") this.#merge.keepLast(fields, key, content.input);
      else this.#merge.append(fields, key, content[key]);
    }
    const block = { index, fields, first, json: "", begun: false };
    this.#blocks.push(block);
    this.#byIndex.set(index, block);
    this.#nextIndex = Math.max(this.#nextIndex, index + 1);
  }

  #append(given: unknown, delta: Fields | null): void {
    if (delta === null) return;
    if (this.#blockAt(given) === undefined) this.#open(given, initialBlocks.get(delta.type) ?? null);
    const block = this.#blockAt(given);
    if (block === undefined) throw new UnmergeableError("a delta belongs to a block that has not begun");
    block.begun = true;
    for (const key in delta) {
      const value = delta[key];
      if (key === "type" || padding.has(key)) continue;
      if (key === "partial_json") block.json += readJson(value);
      // Each delta has one citation.
      else if (key === "citation") this.#merge.appendItem(block.fields, "citations", value);
      // Arrives whole; SDKs keep the last one.
      else if (key === "signature") this.#merge.keepLast(block.fields, key, value);
      else this.#merge.append(block.fields, key, value);
    }
  }

  #close(event: Fields): void {
    const block = this.#blockAt(event.index);
    if (block === undefined) return;
    block.begun = true;
    this.#keep(block.fields, event);
  }

  /** The block at an index; the last one if none is given. */
  #blockAt(given: unknown): Block | undefined {
    const index = readIndex(given);
    return index === undefined ? this.#blocks.at(-1) : this.#byIndex.get(index);
  }
}

/** Undefined for an absent, null or empty index. @throws UnmergeableError if it is not a whole number */
function readIndex(given: unknown): number | undefined {
  const index = asIndex(given);
  if (index === undefined && !isNothing(given))
    throw new UnmergeableError("the index of a block is not a whole number");
  return index;
}

function readJson(fragment: unknown): string {
  if (typeof fragment === "string") return fragment;
  if (isNothing(fragment)) return "";
  throw new UnmergeableError("partial_json is not a text");
}

function blockJson({ fields, json }: Block): string {
  if (json === "") return JSON.stringify(fields);
  const { input = {}, ...rest } = fields;
  if (isJson(json)) return jsonOf(rest, `"input":${json}`);
  return JSON.stringify({ ...rest, input, partial_json: json });
}

function isJson(text: string): boolean {
  if (text.length > maxJson) throw new UnmergeableError("the input of a tool is larger than 16 MiB");
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
