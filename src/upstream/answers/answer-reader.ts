import { TwinParser } from "../../lib/twin-parser.ts";
import { TwinSearch } from "../../lib/twin-pattern.ts";
import { SseEventTooLargeError, SseScanner, type SseSink } from "../../lib/sse-scanner.ts";
import { isFields, type AnswerFacts, type Fields, type ReportedError } from "./answer-facts.ts";
import { UpstreamFault, type FaultStage } from "../faults.ts";
import { readErrorBody, withoutSecret } from "./error-answer.ts";
import type { PromptUsage, Provider, ReportedUsage } from "../providers/provider.ts";
import type { AnswerSink, Reader } from "./reader.ts";

/** A single event may be as large as tool arguments get; more is not an answer. */
const maxEventBytes = 16 << 20;
const doneMarker = Buffer.from("[DONE]");
/** An event of one token is about 283 bytes of JSON, 311 with reasoning; what is above that is text. */
const frameBytes = 400;
const bytesPerToken = 4;

/** Tokens of output that an event suggests by the size of its JSON in bytes: one, more where it is large. */
function outputTokensOf(bytes: number): number {
  return bytes <= frameBytes ? 1 : Math.ceil((bytes - frameBytes) / bytesPerToken);
}

/** Finish reasons by which a provider says that it could not finish (DeepSeek's and Zhipu's). */
const brokenFinishes: ReadonlySet<string> = new Set(["insufficient_system_resource", "network_error"]);
/** How nearly all events are framed; there are others, which the scanner knows. */
const field = Buffer.from("data: ");
const blankLine = Buffer.from("\n\n");
/** Events that are looked into before it pays to look for what they have in common. */
const skipped = 3;
const openBrace = 0x7b;
const closeBrace = 0x7d;

/**
 * Reads a provider's event stream: finds usage, finish reason, errors and the end, whatever the framing, and hands
 * the events on. `[DONE]`, its likes and comments stay here: how an answer ends is for the proxy to say, once it knows.
 */
export class AnswerReader implements Reader, SseSink {
  readonly mediaType = "text/event-stream";
  done = false;
  /** Events handed on. */
  events = 0;
  outputTokens = 0;
  fault: UpstreamFault | null = null;
  readonly #provider: Provider;
  readonly #sink: AnswerSink;
  readonly #facts: AnswerFacts;
  /** Where the sink needs each event parsed; else only those are that may hold facts. */
  readonly #twins: TwinParser | null;
  /** What events without facts have in common. */
  readonly #factless = new TwinSearch(skipped);
  readonly #scanner = new SseScanner(this, maxEventBytes);
  #atEnd = false;

  /** @param parsesAll whether the sink needs each event parsed; else only those are that may hold facts */
  constructor(provider: Provider, sink: AnswerSink, facts: AnswerFacts, parsesAll: boolean) {
    this.#provider = provider;
    this.#sink = sink;
    this.#facts = facts;
    this.#twins = parsesAll ? new TwinParser() : null;
  }

  get usage(): ReportedUsage | null {
    return this.#facts.usage;
  }

  get prompt(): PromptUsage | null {
    return this.#facts.prompt;
  }

  /** Stops at the first fault, which is then in `fault`. */
  push(chunk: Buffer): void {
    if (this.#isFactlessEvent(chunk)) {
      this.#handOn(chunk, 0, chunk.length, chunk.length - field.length - blankLine.length, false, undefined);
    } else {
      try {
        this.#scanner.push(chunk);
      } catch (cause) {
        if (!(cause instanceof SseEventTooLargeError)) throw cause;
        this.fault ??= this.#invalid("an event is larger than 16 MiB", cause);
      }
    }
    this.#sink.onBatch();
  }

  end(): UpstreamFault | null {
    // A last `data: [DONE]` without its blank line still counts; half an event doesn't.
    if (this.fault === null && this.#scanner.pendingBytes > 0) {
      this.#atEnd = true;
      this.push(Buffer.from("\n\n"));
    }
    if (this.fault !== null) return this.fault;
    if (!this.#facts.complete)
      return this.#newFault("truncated", "the answer ended without a finish_reason or its last event");
    const { finishReason } = this.#facts;
    if (finishReason !== null && brokenFinishes.has(finishReason)) {
      return this.#newFault("overloaded", `the provider gave up: ${finishReason}`);
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
    // SDKs raise it whatever its data looks like.
    if (name === "error") {
      this.#failWith(readErrorBody(data.toString("utf8", dataStart, dataEnd)));
      return;
    }
    let parsed: Fields | undefined;
    let usageOnly = false;
    if (this.#needsParsing(data, dataStart, dataEnd)) {
      parsed = this.#parse(data, dataStart, dataEnd);
      if (parsed === undefined) return;
      const kind = this.#facts.read(parsed);
      if (kind === "error") this.#failWith(this.#facts.error);
      if (kind === "end") this.done = true;
      if (kind === "error" || kind === "end" || kind === "aside") return;
      usageOnly = kind === "usage";
    }
    this.#handOn(event, start, end, dataEnd - dataStart, usageOnly, parsed);
  }

  onComment(): void {
    // `: keep-alive` says that a request is queued or generation has stalled: nothing that a client could use.
  }

  #handOn(event: Buffer, start: number, end: number, jsonBytes: number, usageOnly: boolean, parsed: unknown): void {
    const tokens = outputTokensOf(jsonBytes);
    this.events++;
    this.outputTokens += tokens;
    this.#sink.onEvent(event, start, end, tokens, usageOnly, parsed);
  }

  /**
   * Whether the chunk is one whole event, as most reads of a stream are, without facts. The scanner would find the same:
   * the text that differs has no line end in it.
   */
  #isFactlessEvent(chunk: Buffer): boolean {
    const { pattern } = this.#factless;
    if (pattern === null || this.done || this.fault !== null || this.#scanner.pendingBytes > 0) return false;
    const end = chunk.length - blankLine.length;
    return holds(chunk, 0, field) && holds(chunk, end, blankLine) && pattern.fits(chunk, field.length, end);
  }

  /** A JSON.parse for each token costs too much: most are known to hold no facts by their look. */
  #needsParsing(data: Buffer, start: number, end: number): boolean {
    if (this.#twins !== null || this.events === 0) return true;
    // An event that differs in one text alone from events without facts has none either.
    if (this.#factless.pattern?.fits(data, start, end) === true) return false;
    // Perhaps text where an object must be.
    if (data[start] !== openBrace || data[end - 1] !== closeBrace) return true;
    if (this.#facts.mayHold(data.toString("latin1", start, end))) return true;
    this.#factless.show(data, start, end);
    return false;
  }

  /** Undefined, and a fault, where it is no JSON object. */
  #parse(data: Buffer, start: number, end: number): Fields | undefined {
    let parsed: unknown;
    try {
      parsed = this.#twins?.parse(data, start, end) ?? JSON.parse(data.toString("utf8", start, end));
    } catch {
      // Without the cause: its message quotes the text, which may be an answer, a prompt or a key.
      this.fault = this.#invalid("an event is not JSON");
      return undefined;
    }
    if (isFields(parsed)) return parsed;
    this.fault = this.#invalid("an event is not a JSON object");
    return undefined;
  }

  #failWith(error: ReportedError | null): void {
    const { code, message } = error ?? { code: "", message: "" };
    const kind = this.#provider.dialect.classify(200, code, message);
    this.fault = this.#newFault(kind, withoutSecret(message, this.#provider));
  }

  #invalid(message: string, cause?: unknown): UpstreamFault {
    return this.#newFault("invalid_response", message, cause);
  }

  #newFault(kind: UpstreamFault["facts"]["kind"], upstreamMessage: string, cause?: unknown): UpstreamFault {
    const stage: FaultStage = this.events === 0 ? "first_event" : "streaming";
    return new UpstreamFault({ kind, stage, upstreamMessage, cause });
  }
}

function holds(bytes: Buffer, at: number, wanted: Buffer): boolean {
  for (let i = 0; i < wanted.length; i++) if (bytes[at + i] !== wanted[i]) return false;
  return true;
}
