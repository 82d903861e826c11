import { SseEventTooLargeError, SseScanner, type SseSink } from "../lib/sse-scanner.ts";
import { mayHoldFacts, readChunkFacts, type ChunkFacts } from "./chunk-facts.ts";
import { UpstreamFault, type FaultStage } from "./faults.ts";
import { readErrorBody, withoutSecret } from "./error-answer.ts";
import type { Provider, ReportedUsage } from "./provider.ts";

/** Where the events of an answer go. Buffers handed over are never written to again. */
export interface AnswerSink {
  /**
   * One data event, whole. `event.subarray(start, end)` are its raw bytes with the blank line,
   * `data.subarray(dataStart, dataEnd)` its JSON.
   * @param usageOnly true for the extra chunk that OpenAI sends because the proxy asked for usage
   */
  onEvent(
    event: Buffer,
    start: number,
    end: number,
    data: Buffer,
    dataStart: number,
    dataEnd: number,
    usageOnly: boolean,
  ): void;
  /** All events of one network read have been handed over. */
  onBatch(): void;
  /** The answer has ended; null where it is complete. Nothing comes after this. */
  onEnd(fault: UpstreamFault | null): void;
}

/** A single event may be as large as tool arguments get; more is not an answer. */
const maxEventBytes = 16 << 20;
const doneMarker = Buffer.from("[DONE]");
/** An event of one token is about 283 bytes of JSON, 311 with reasoning; what is above that is text. */
const frameBytes = 400;
const bytesPerToken = 4;

/** Tokens of output that an event suggests by the size of its JSON in bytes: one, more where it is large. */
export function outputTokensOf(bytes: number): number {
  return bytes <= frameBytes ? 1 : Math.ceil((bytes - frameBytes) / bytesPerToken);
}

/** Finish reasons by which a provider says that it could not finish (DeepSeek's and Zhipu's). */
const brokenFinishes: ReadonlySet<string> = new Set(["insufficient_system_resource", "network_error"]);
const openBrace = 0x7b;
const closeBrace = 0x7d;

/**
 * Reads a provider's event stream: finds usage, finish reason, errors and the end, whatever the framing, and hands
 * the events on. `[DONE]` and comments stay here: how an answer ends is for the proxy to say, once it knows.
 */
export class AnswerReader implements SseSink {
  /** As last reported; null until then. */
  usage: ReportedUsage | null = null;
  finishReason: string | null = null;
  done = false;
  /** Data events handed on. */
  events = 0;
  /** Tokens of output as the events suggest: one an event, more where an event is large. */
  outputTokens = 0;
  fault: UpstreamFault | null = null;
  readonly #provider: Provider;
  readonly #sink: AnswerSink;
  readonly #scanner = new SseScanner(this, maxEventBytes);
  #atEnd = false;

  constructor(provider: Provider, sink: AnswerSink) {
    this.#provider = provider;
    this.#sink = sink;
  }

  /** Takes bytes as the network cut them. Stops at the first fault, which is then in `fault`. */
  push(chunk: Buffer): void {
    try {
      this.#scanner.push(chunk);
    } catch (cause) {
      if (!(cause instanceof SseEventTooLargeError)) throw cause;
      this.fault ??= this.#invalid("an event is larger than 16 MiB", cause);
    }
    this.#sink.onBatch();
  }

  /** The provider closed the stream cleanly. Returns what the answer is worth: null where it is complete. */
  end(): UpstreamFault | null {
    // A last `data: [DONE]` without its blank line still counts; half an event doesn't.
    if (this.fault === null && this.#scanner.pendingBytes > 0) {
      this.#atEnd = true;
      this.push(Buffer.from("\n\n"));
    }
    if (this.fault !== null) return this.fault;
    // [DONE] without a finish_reason is no ending either: OpenAI's SDK throws on it.
    if (this.finishReason === null) return this.#newFault("truncated", "the answer ended without a finish_reason");
    if (brokenFinishes.has(this.finishReason)) {
      return this.#newFault("overloaded", `the provider gave up: ${this.finishReason}`);
    }
    return null;
  }

  onEvent(
    event: Buffer,
    start: number,
    end: number,
    data: Buffer,
    dataStart: number,
    dataEnd: number,
    name: string,
  ): void {
    if (this.done || this.fault !== null) return;
    if (dataEnd - dataStart === doneMarker.length && doneMarker.compare(data, dataStart, dataEnd) === 0) {
      this.done = true;
      return;
    }
    if (this.#atEnd) return;
    // OpenAI's SDKs raise it as well, whatever its data looks like.
    if (name === "error") {
      const error = readErrorBody(data.toString("utf8", dataStart, dataEnd));
      this.#failWith(error?.code ?? "", error?.message ?? "");
      return;
    }
    let usageOnly = false;
    if (this.events === 0 || mayHoldFacts(data.toString("latin1", dataStart, dataEnd))) {
      const facts = this.#parse(data, dataStart, dataEnd);
      if (facts === null) return;
      ({ usageOnly } = facts);
    } else if (data[dataStart] !== openBrace || data[dataEnd - 1] !== closeBrace) {
      // The full check would be a JSON.parse for each token; this one catches text where an object must be.
      this.fault = this.#invalid("an event is not a JSON object");
      return;
    }
    this.events++;
    this.outputTokens += outputTokensOf(dataEnd - dataStart);
    this.#sink.onEvent(event, start, end, data, dataStart, dataEnd, usageOnly);
  }

  onComment(): void {
    // `: keep-alive` says that a request is queued or generation has stalled: nothing that a client could use.
  }

  /** Parses an event and keeps its facts; null, and a fault, where it is an error or no JSON object. */
  #parse(data: Buffer, start: number, end: number): ChunkFacts | null {
    let facts: ChunkFacts | null = null;
    try {
      facts = readChunkFacts(JSON.parse(data.toString("utf8", start, end)));
    } catch {
      // Without the cause: its message quotes the text, which may be an answer, a prompt or a key.
      this.fault = this.#invalid("an event is not JSON");
      return null;
    }
    if (facts === null) {
      this.fault = this.#invalid("an event is not a JSON object");
      return null;
    }
    if (facts.error !== null) {
      this.#failWith(facts.error.code, facts.error.message);
      return null;
    }
    if (facts.usage !== null) this.usage = facts.usage;
    this.finishReason ??= facts.finishReason;
    return facts;
  }

  #failWith(code: string, message: string): void {
    const kind = this.#provider.dialect.classify(200, code, message);
    this.fault = this.#newFault(kind, withoutSecret(message, this.#provider.secret));
  }

  #invalid(message: string, cause?: unknown): UpstreamFault {
    return this.#newFault("invalid_response", message, cause);
  }

  #newFault(kind: UpstreamFault["facts"]["kind"], upstreamMessage: string, cause?: unknown): UpstreamFault {
    const stage: FaultStage = this.events === 0 ? "first_event" : "streaming";
    return new UpstreamFault({ kind, stage, upstreamMessage, cause });
  }
}
