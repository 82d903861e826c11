import { GrowingBuffer } from "../../lib/growing-buffer.ts";
import { JsonText } from "../../lib/json-text.ts";
import { UpstreamError, type UpstreamErrorKind } from "../upstream-error.ts";
import type { PromptUsage, Provider, ReportedUsage } from "../provider.ts";
import { isFields, type EventParser, type Fields } from "./event-parser.ts";
import { graceMs, verdictOn } from "./response-rules.ts";
import { faultOfError } from "./error-response.ts";
import { estimatedTokens } from "./output-tokens.ts";
import type { ResponseSink, EventRole, ResponseReader } from "./response-reader.ts";
import { findError } from "./reported-error.ts";
import type { UnfoldedEvent } from "./unfold.ts";
import { readPromptUsage } from "./usage.ts";

/** Of an API whose answers are streamed: how one that came whole is read. */
export interface WholeAnswers {
  readonly facts: EventParser;
  readonly unfold: (answer: Fields) => Iterable<UnfoldedEvent>;
}

/** Two thousand vectors of 3,072 numbers, in base64. */
const maxVectorBytes = 64 << 20;
/** As large as a single event may be. */
const maxAnswerBytes = 16 << 20;
const closeBrace = 0x7d;
const byteOrderMark = Buffer.from("\uFEFF");

/**
 * Reads an answer that is one JSON: embeddings, or what was asked for as a stream and came whole all the same. Its
 * events are there once all of it is: until then another provider may be asked. The same one would say the same again,
 * so a whole JSON that is of no use is a lasting fault.
 */
export class JsonReader implements ResponseReader {
  readonly done = false;
  readonly passesIds = false;
  prompt: PromptUsage | null = null;
  usage: ReportedUsage | null = null;
  outputTokens = 0;
  fault: UpstreamError | null = null;
  whole: Buffer | null = null;
  readonly #provider: Provider;
  readonly #sink: ResponseSink;
  /** null: of vectors, which are handed on in one piece. */
  readonly #answers: WholeAnswers | null;
  readonly #body: GrowingBuffer;
  /** The last byte that is no white space. */
  #lastByte = 0;
  /** How much had come when it was last tried whether that is all. */
  #parsedBytes = 0;

  constructor(provider: Provider, sink: ResponseSink, answers: WholeAnswers | null) {
    this.#provider = provider;
    this.#sink = sink;
    this.#answers = answers;
    this.#body = new GrowingBuffer(answers === null ? maxVectorBytes : maxAnswerBytes);
  }

  /** What ends in a brace may be all of it. Where it was not, it is looked at again only once it is twice as long. */
  get graceMs(): number | null {
    const mayBeOver = this.#lastByte === closeBrace && this.#body.length >= 2 * this.#parsedBytes;
    return mayBeOver ? graceMs("finished", true) : null;
  }

  push(chunk: Buffer): void {
    if (this.fault === null && !this.#body.push(chunk)) this.fault = this.#invalid("the answer is too large");
    for (let at = chunk.length - 1; at >= 0; at--) {
      const byte = chunk[at] ?? 0;
      if (byte <= 0x20) continue;
      this.#lastByte = byte;
      break;
    }
    this.#sink.onBatch();
  }

  end(cut: UpstreamError | null = null): UpstreamError | null {
    if (this.fault !== null) return this.fault;
    const body = withoutMark(this.#body.take());
    const answer = parse(body);
    this.#parsedBytes = this.#body.length;
    // Perhaps cut off where HTTP couldn't tell.
    if (answer === undefined) return cut ?? newFault("invalid_response", "the answer is not JSON");
    if (!isFields(answer)) return this.#invalid("the answer is not a JSON object");
    const error = findError(answer);
    if (error !== null) return faultOfError(this.#provider, "", error, 200, { stage: "first_event" });
    return this.#answers === null ? this.#readVectors(answer, body) : this.#readAnswer(this.#answers, answer, body);
  }

  #readVectors(answer: Fields, body: Buffer): UpstreamError | null {
    if (!Array.isArray(answer.data)) return this.#invalid("the answer has no list under data");
    this.usage = readPromptUsage(answer.usage);
    this.whole = body;
    this.#sink.onEvent(body, 0, body.length, 0, "finish", answer);
    return null;
  }

  #readAnswer({ facts, unfold }: WholeAnswers, answer: Fields, body: Buffer): UpstreamError | null {
    const text = new JsonText(facts.text);
    const events = Array.from(unfold(answer), ({ parsed, role, name }) => {
      facts.read(parsed);
      const head = name === undefined ? "data: " : `event: ${name}\ndata: `;
      const bytes = Buffer.from(`${head}${JSON.stringify(parsed)}\n\n`);
      return { bytes, parsed, role, textBytes: text.bytesIn(bytes, head.length, bytes.length - 2) };
    });
    if (events.length === 0) return this.#invalid("the answer is a JSON of another kind");
    this.usage = facts.usage;
    this.prompt = facts.prompt;
    const verdict = verdictOn(facts.standing, "farewell");
    if (verdict === "given_up") return newFault("overloaded", "the provider could not finish the answer", true);
    if (verdict !== "complete") return newFault("truncated", "a choice of the answer has no finish_reason", true);
    this.whole = body;
    for (const { bytes, textBytes, role, parsed } of events) this.#handOn(bytes, textBytes, role, parsed);
    return null;
  }

  #handOn(event: Buffer, textBytes: number, role: EventRole, parsed: unknown): void {
    this.outputTokens += estimatedTokens(textBytes);
    this.#sink.onEvent(event, 0, event.length, textBytes, role, parsed);
  }

  #invalid(upstreamMessage: string): UpstreamError {
    return newFault("invalid_response", upstreamMessage, true);
  }
}

function newFault(kind: UpstreamErrorKind, upstreamMessage: string, isLasting = false): UpstreamError {
  return new UpstreamError({ kind, stage: "first_event", upstreamMessage, isLasting });
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
