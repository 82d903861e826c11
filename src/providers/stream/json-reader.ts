import { GrowingBuffer } from "../../lib/growing-buffer.ts";
import { textBytesOf } from "../../lib/json-text.ts";
import { UpstreamError, type UpstreamErrorKind } from "../upstream-error.ts";
import type { Provider } from "../provider.ts";
import type { StreamReading } from "../apis.ts";
import { isFields, type EventParser, type Fields } from "./event-parser.ts";
import { graceMs, isTooComplexJson, ofOtherApi, verdictOf } from "./response-rules.ts";
import { toUpstreamError } from "./error-response.ts";
import { estimatedTokens } from "./output-tokens.ts";
import type { ResponseSink, EventRole, ResponseReader } from "./response-reader.ts";
import { findError } from "./reported-error.ts";
import type { PromptUsage, ReportedUsage } from "./reported.ts";
import { readPromptUsage } from "./usage.ts";

/** An event of a response that came whole. */
interface WholeEvent {
  readonly bytes: Buffer;
  readonly parsed: Fields;
  readonly role: EventRole;
  readonly textBytes: number;
}

/** Two thousand vectors of 3,072 numbers, in base64. */
const maxVectorBytes = 64 << 20;
/** The same as for a single event. */
const maxCompletionBytes = 16 << 20;
const closeBrace = 0x7d;
const byteOrderMark = Buffer.from("\uFEFF");

/**
 * Reads a response that is one JSON: embeddings, or a response that came whole though a stream was requested. Its
 * events are passed on once it is complete: until then another provider may be tried. A retry would get the same again,
 * so a complete JSON that is unusable is a permanent error.
 */
export class JsonReader implements ResponseReader {
  readonly done = false;
  readonly passesIds = false;
  prompt: PromptUsage | null = null;
  usage: ReportedUsage | null = null;
  outputTokens = 0;
  error: UpstreamError | null = null;
  whole: Buffer | null = null;
  readonly #provider: Provider;
  readonly #sink: ResponseSink;
  /** null for embeddings, which are passed on in one piece. */
  readonly #format: StreamReading | null;
  readonly #body: GrowingBuffer;
  /** The last byte that is not white space. */
  #lastByte = 0;
  /** Length of the body when it was last parsed. */
  #parsedBytes = 0;

  constructor(provider: Provider, sink: ResponseSink, format: StreamReading | null) {
    this.#provider = provider;
    this.#sink = sink;
    this.#format = format;
    this.#body = new GrowingBuffer(format === null ? maxVectorBytes : maxCompletionBytes);
  }

  /** A body that ends in a brace may be complete. If it was not, it is parsed again only once it is twice as long. */
  get graceMs(): number | null {
    const mayBeOver = this.#lastByte === closeBrace && this.#body.length >= 2 * this.#parsedBytes;
    return mayBeOver ? graceMs("finished", true) : null;
  }

  push(chunk: Buffer): void {
    if (this.error === null && !this.#body.push(chunk)) this.error = this.#invalid("the response is too large");
    for (let at = chunk.length - 1; at >= 0; at--) {
      const byte = chunk[at] ?? 0;
      if (byte <= 0x20) continue;
      this.#lastByte = byte;
      break;
    }
    this.#sink.onBatch();
  }

  end(cut: UpstreamError | null = null): UpstreamError | null {
    if (this.error !== null) return this.error;
    const body = withoutMark(this.#body.take());
    if (isTooComplexJson(body)) return this.#invalid("the response has too many keys, or is nested too deeply");
    const response = parse(body);
    this.#parsedBytes = this.#body.length;
    // Perhaps truncated in a way that HTTP can't detect.
    if (response === undefined) return cut ?? newError("invalid_response", "the response is not JSON");
    if (!isFields(response)) return this.#invalid("the response is not a JSON object");
    const error = findError(response);
    if (error !== null) return toUpstreamError(this.#provider, "", error, 200, { stage: "first_event" });
    return this.#format === null
      ? this.#readVectors(response, body)
      : this.#readCompletion(this.#format, response, body);
  }

  #readVectors(response: Fields, body: Buffer): UpstreamError | null {
    if (!Array.isArray(response.data)) return this.#invalid("the response has no list under data");
    // A list of models has the same form.
    if (!(response.data as unknown[]).every(hasVector))
      return this.#invalid("the response has an item under data without an embedding");
    this.usage = readPromptUsage(response.usage);
    this.whole = body;
    this.#sink.onEvent(body, 0, body.length, 0, "finish", response);
    return null;
  }

  #readCompletion(format: StreamReading, response: Fields, body: Buffer): UpstreamError | null {
    const facts = format.createParser();
    const events = unfolded(format, response, facts);
    if (events === null) return this.#invalid("the response is nested too deeply");
    if (events === "foreign") return this.#invalid(ofOtherApi);
    if (events.length === 0) return this.#invalid("the response is a JSON of another kind");
    this.usage = facts.usage;
    this.prompt = facts.prompt;
    const verdict = verdictOf(facts.standing, "done");
    if (verdict === "given_up") return newError("overloaded", "the provider could not finish the response", true);
    if (verdict !== "complete") return newError("truncated", "a choice of the response has no finish_reason", true);
    this.whole = body;
    for (const { bytes, textBytes, role, parsed } of events) this.#handOn(bytes, textBytes, role, parsed);
    return null;
  }

  #handOn(event: Buffer, textBytes: number, role: EventRole, parsed: unknown): void {
    this.outputTokens += estimatedTokens(textBytes);
    this.#sink.onEvent(event, 0, event.length, textBytes, role, parsed);
  }

  #invalid(upstreamMessage: string): UpstreamError {
    return newError("invalid_response", upstreamMessage, true);
  }
}

/**
 * The events that a stream would have had, read by the parser; null if JSON.stringify can't write one of them, "foreign"
 * if one is of another API.
 */
function unfolded(
  { unfold }: StreamReading,
  response: Fields,
  facts: EventParser,
): readonly WholeEvent[] | "foreign" | null {
  const events: WholeEvent[] = [];
  try {
    for (const { parsed, role, name } of unfold(response)) {
      if (facts.read(parsed) === "foreign") return "foreign";
      const head = name === undefined ? "data: " : `event: ${name}\ndata: `;
      const bytes = Buffer.from(`${head}${JSON.stringify(parsed)}\n\n`);
      events.push({ bytes, parsed, role, textBytes: textBytesOf(parsed, facts.text) });
    }
    return events;
  } catch (cause) {
    if (cause instanceof RangeError) return null;
    throw cause;
  }
}

function newError(kind: UpstreamErrorKind, upstreamMessage: string, isLasting = false): UpstreamError {
  return new UpstreamError({ kind, stage: "first_event", upstreamMessage, isPermanent: isLasting });
}

/** Some servers have others beside `embedding`, or in its place, such as `sparse_embedding`. */
function hasVector(item: unknown): boolean {
  return isFields(item) && Object.keys(item).some((key) => key.includes("embedding"));
}

function withoutMark(body: Buffer): Buffer {
  return body.subarray(0, byteOrderMark.length).equals(byteOrderMark) ? body.subarray(byteOrderMark.length) : body;
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8"));
  } catch {
    return undefined;
  }
}
