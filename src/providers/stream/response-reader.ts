import type { UpstreamError } from "../upstream-error.ts";
import type { PromptUsage, ReportedUsage } from "./reported.ts";

/**
 * The role of an event: a part of the response; its finish, or that of one of its choices; OpenAI's extra usage chunk,
 * which comes because the proxy requested it; or the last event of a response that ends with one of its own.
 */
export type EventRole = "part" | "finish" | "usage" | "last";

/** Receives the events of a response. Buffers passed to it are never modified. */
export interface ResponseSink {
  /**
   * One complete event: `event.subarray(start, end)` are its raw bytes, including the blank line.
   * @param textBytes bytes of its model-generated text, in UTF-8
   * @param parsed its JSON; always given if the response is collected, otherwise it may be undefined
   */
  onEvent(event: Buffer, start: number, end: number, textBytes: number, role: EventRole, parsed: unknown): void;
  /** All events of one network read have been passed on. */
  onBatch(): void;
  /** The response has ended; the error is null if it is complete. Nothing comes after this. */
  onEnd(error: UpstreamError | null): void;
}

/** The usage of a response so far, for its charge. */
export interface ResponseReport {
  /** As last reported; null until then. */
  readonly usage: ReportedUsage | null;
  /** The prompt's tokens, if they are reported before the rest. */
  readonly prompt: PromptUsage | null;
  /** Output tokens as estimated from the text of the events. */
  readonly outputTokens: number;
}

/** Reads one response from the bytes as they arrive. */
export interface ResponseReader extends ResponseReport {
  /** The first error; nothing is read after it. */
  readonly error: UpstreamError | null;
  /** Whether the response itself has signalled its end. */
  readonly done: boolean;
  /**
   * If nothing required is missing: how long to wait for optional data, in ms, before end() decides whether the
   * response is over. null if something is missing.
   */
  readonly graceMs: number | null;
  /** Whether an event with an `id` was passed on. */
  readonly passesIds: boolean;
  /** The provider's bytes, if the response is one complete JSON. */
  readonly whole: Buffer | null;
  /** Takes bytes as they arrive from the network. */
  push(chunk: Buffer): void;
  /**
   * Nothing more comes. Returns null if the response is complete, else its error.
   * @param cut the error that ended it, unless the provider closed cleanly
   */
  end(cut?: UpstreamError | null): UpstreamError | null;
}
