import { JsonText, textBytesOf } from "../../lib/json-text.ts";
import { TwinParser, type TwinPattern, TwinSearch } from "../../lib/twin-pattern.ts";
import { SseEventTooLargeError, SseScanner, type SseSink } from "../../lib/sse-scanner.ts";
import { isFields, isKeepAliveName, type EventParser, type Fields } from "./event-parser.ts";
import { UpstreamError, type UpstreamErrorKind, type UpstreamStage } from "../upstream-error.ts";
import { graceMs, isTooComplexJson, ofOtherApi, verdictOf } from "./response-rules.ts";
import { toUpstreamError } from "./error-response.ts";
import type { Provider } from "../provider.ts";
import { estimatedTokens } from "./output-tokens.ts";
import type { ResponseSink, EventRole, ResponseReader } from "./response-reader.ts";
import type { PromptUsage, ReportedError, ReportedUsage } from "./reported.ts";
import { readErrorBody, emptyError } from "./reported-error.ts";

/** Largest event: room for the largest tool arguments. */
const maxEventBytes = 16 << 20;
/** Most bytes that are read of an event that is named an error, as of an error's body. */
const maxErrorBytes = 64 << 10;
const unfinished = "the response ended without a finish_reason for each of its choices";
const doneMarker = Buffer.from("[DONE]");
/** Data that some servers send to keep the connection alive, where others send comments. */
const keepAlive = /^[\s":.[\]]*(?:(?:null|ping|pong|keep[-_ ]?alive|heart[-_ ]?beat)[\s":.[\]]*)?$/i;
const longestKeepAlive = 40;
/** The framing of nearly all events; the scanner handles the others. */
const field = Buffer.from("data: ");
const blankLine = Buffer.from("\n\n");
/** Number of events to parse before it pays to look for what they have in common. */
const skipped = 3;
/** Inserted where events differ, to see whether that counts as text; longer than what may occur there twice. */
const probe = "x".repeat(1000);
const openBrace = 0x7b;
const closeBrace = 0x7d;

/**
 * Reads a provider's event stream: finds usage, finish reasons, errors and the end in any framing, and passes the
 * events on. `[DONE]`, its equivalents and comments are not forwarded: the proxy writes its own ending once the outcome
 * is known.
 */
export class StreamReader implements ResponseReader, SseSink {
  readonly whole = null;
  done = false;
  /** Events passed on. */
  events = 0;
  outputTokens = 0;
  error: UpstreamError | null = null;
  graceMs: number | null = null;
  readonly #provider: Provider;
  readonly #sink: ResponseSink;
  readonly #parser: EventParser;
  readonly #choices: number;
  /** Set if the sink needs each event parsed; if not, only events that may hold facts are. */
  readonly #twins: TwinParser | null;
  readonly #text: JsonText;
  /** The pattern that events without facts have in common. */
  readonly #factless = new TwinSearch(skipped);
  /** The pattern whose text has been measured. */
  #measured: TwinPattern | null = null;
  /** Bytes of text that all of its events share. */
  #sameText = 0;
  /** Whether the part that differs is text; null if that depends on its length. */
  #differsInText: boolean | null = null;
  readonly #scanner = new SseScanner(this, maxEventBytes);
  #atEnd = false;

  /**
   * @param parsesAll whether the sink needs each event parsed, not only those that may hold facts
   * @param choices number of choices requested
   */
  constructor(provider: Provider, sink: ResponseSink, parser: EventParser, parsesAll: boolean, choices: number) {
    this.#choices = choices;
    this.#provider = provider;
    this.#sink = sink;
    this.#parser = parser;
    this.#text = new JsonText(parser.text);
    this.#twins = parsesAll ? new TwinParser() : null;
  }

  get usage(): ReportedUsage | null {
    return this.#parser.usage;
  }

  get passesIds(): boolean {
    return this.#scanner.idsSeen;
  }

  get prompt(): PromptUsage | null {
    return this.#parser.prompt;
  }

  /** Stops at the first error and sets `error`. */
  push(chunk: Buffer): void {
    const text = this.#textOfFactlessEvent(chunk);
    if (text !== -1) {
      this.#handOn(chunk, 0, chunk.length, text, "part", undefined);
    } else {
      try {
        this.#scanner.push(chunk);
      } catch (cause) {
        if (!(cause instanceof SseEventTooLargeError)) throw cause;
        this.#stopAt("an event is larger than 16 MiB", cause);
      }
    }
    this.#sink.onBatch();
  }

  end(cut: UpstreamError | null = null): UpstreamError | null {
    // A last event without its blank line still counts; a partial event doesn't.
    if (this.error === null && this.#scanner.pendingBytes > 0) {
      this.#atEnd = true;
      this.push(blankLine);
    }
    if (this.error !== null) return this.error;
    switch (verdictOf(this.#parser.standing, this.done ? "done" : cut === null ? "end" : "break")) {
      case "complete":
        return null;
      case "broken":
        return cut;
      case "given_up":
        return this.#newError("overloaded", "the provider could not finish the response");
      case "unfinished":
        return this.#newError("truncated", unfinished, undefined, true);
      case "truncated":
        return this.#newError("truncated", unfinished);
    }
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
    if (this.done || this.error !== null) return;
    // SDKs throw on this event whatever its data is.
    if (name === "error") {
      this.#failWith(readErrorBody(data.toString("utf8", dataStart, Math.min(dataEnd, dataStart + maxErrorBytes))));
      return;
    }
    // Whatever its data is as well, such as the time.
    if (name !== "" && isKeepAliveName(name)) return;
    if (data[dataStart] !== openBrace) {
      if (isKeepAlive(data, dataStart, dataEnd)) return;
      this.done = isDoneMarker(data, dataStart, dataEnd);
      if (this.done) return;
    }
    const text = this.events > 0 && this.#twins === null ? this.#textOfTwin(data, dataStart, dataEnd) : -1;
    if (text !== -1) {
      this.#handOn(event, start, end, text, "part", undefined);
      return;
    }
    let parsed: Fields | undefined;
    let role: EventRole = "part";
    if (this.#needsParsing(data, dataStart, dataEnd)) {
      parsed = this.#parse(data, dataStart, dataEnd);
      if (parsed === undefined) return;
      const kind = this.#parser.read(parsed);
      this.graceMs = this.#isWhole() ? graceMs(this.#parser.standing, this.usage !== null) : null;
      if (kind === "error") this.#failWith(this.#parser.error);
      if (kind === "foreign") this.#stopAt(ofOtherApi);
      if (kind === "end") this.done = true;
      if (kind === "error" || kind === "foreign" || kind === "end" || kind === "aside") return;
      if (kind === "usage") role = "usage";
      else if (kind === "last") {
        this.done = true;
        role = "last";
      } else if (this.#parser.finishing) role = "finish";
    }
    const textBytes =
      parsed === undefined ? this.#text.bytesIn(data, dataStart, dataEnd) : textBytesOf(parsed, this.#parser.text);
    this.#handOn(event, start, end, textBytes, role, parsed);
  }

  onComment(): void {
    // `: keep-alive` means that a request is queued or generation has stalled: of no use to a client.
  }

  #handOn(event: Buffer, start: number, end: number, textBytes: number, role: EventRole, parsed: unknown): void {
    this.events++;
    this.outputTokens += estimatedTokens(textBytes);
    this.#sink.onEvent(event, start, end, textBytes, role, parsed);
  }

  /**
   * Bytes of text if the chunk is exactly one event without facts, as most reads of a stream are; else -1. The scanner
   * would give the same result: the text that differs contains no line end.
   */
  #textOfFactlessEvent(chunk: Buffer): number {
    if (this.#factless.pattern === null || this.done || this.error !== null || this.#scanner.pendingBytes > 0)
      return -1;
    const end = chunk.length - blankLine.length;
    return holds(chunk, 0, field) && holds(chunk, end, blankLine) ? this.#textOfTwin(chunk, field.length, end) : -1;
  }

  /**
   * Bytes of text in an event that differs from events without facts in a single text, and so has no facts either; -1
   * for any other event.
   */
  #textOfTwin(data: Buffer, start: number, end: number): number {
    const { pattern } = this.#factless;
    if (pattern === null) return -1;
    const differing = pattern.textBytesIn(data, start, end);
    if (differing === -1) return -1;
    if (pattern !== this.#measured) this.#measure(pattern);
    if (this.#differsInText === null) return -1;
    return this.#sameText + (this.#differsInText ? differing : 0);
  }

  #measure(pattern: TwinPattern): void {
    const textWith = (text: string): number => {
      const json = pattern.jsonWith(text);
      return this.#text.bytesIn(json, 0, json.length);
    };
    this.#measured = pattern;
    this.#sameText = textWith("");
    const more = textWith(probe) - this.#sameText;
    this.#differsInText = more === 0 || more === probe.length ? more > 0 : null;
  }

  /** A JSON.parse for each token costs too much: most events can be seen to hold no facts. */
  #needsParsing(data: Buffer, start: number, end: number): boolean {
    if (this.#twins !== null || this.events === 0 || this.#atEnd) return true;
    // Perhaps not an object.
    if (data[start] !== openBrace || data[end - 1] !== closeBrace) return true;
    if (this.#parser.mayHold(data.toString("latin1", start, end))) return true;
    this.#factless.show(data, start, end);
    return false;
  }

  /** Undefined, after ending the response, if it is not a JSON object. */
  #parse(data: Buffer, start: number, end: number): Fields | undefined {
    if (isTooComplexJson(data, start, end)) {
      this.#stopAt("an event has too many keys, or is nested too deeply");
      return undefined;
    }
    let parsed: unknown;
    try {
      parsed = this.#twins?.parse(data, start, end) ?? JSON.parse(data.toString("utf8", start, end));
    } catch {
      // Without the cause: its message quotes the text, which may be a response, a prompt or a key.
      this.#stopAt("an event is not JSON");
      return undefined;
    }
    if (isFields(parsed)) return parsed;
    this.#stopAt("an event is not a JSON object");
    return undefined;
  }

  /** An unreadable event breaks the response, or ends it if nothing is missing any more. */
  #stopAt(message: string, cause?: unknown): void {
    if (this.#parser.standing !== "unfinished") this.done = true;
    else if (!this.#atEnd) this.error ??= this.#newError("invalid_response", message, cause);
  }

  /** After a response with nothing missing, an error is about the connection. */
  #failWith(error: ReportedError | null): void {
    if (this.#isWhole()) {
      this.done = true;
      return;
    }
    this.error = toUpstreamError(this.#provider, "", error ?? emptyError, 200, { stage: this.#stage() });
  }

  #isWhole(): boolean {
    return this.#parser.standing !== "unfinished" && this.#parser.choices >= this.#choices;
  }

  #newError(kind: UpstreamErrorKind, upstreamMessage: string, cause?: unknown, isLasting = false): UpstreamError {
    return new UpstreamError({ kind, stage: this.#stage(), upstreamMessage, cause, isPermanent: isLasting });
  }

  #stage(): UpstreamStage {
    return this.events === 0 ? "first_event" : "streaming";
  }
}

/** Whether an event's data only keeps the connection alive; it is treated like a comment. */
function isKeepAlive(data: Buffer, start: number, end: number): boolean {
  return end - start <= longestKeepAlive && keepAlive.test(data.toString("latin1", start, end));
}

function isDoneMarker(data: Buffer, start: number, end: number): boolean {
  let at = start;
  while (at < end && (data[at] ?? 0) <= 0x20) at++;
  return end - at >= doneMarker.length && holds(data, at, doneMarker);
}

function holds(bytes: Buffer, at: number, wanted: Buffer): boolean {
  for (let i = 0; i < wanted.length; i++) if (bytes[at + i] !== wanted[i]) return false;
  return true;
}
