import type { UpstreamError } from "../upstream-error.ts";
import type { PromptUsage, ReportedUsage } from "../provider.ts";

/**
 * What an event is to the answer: a part of it; its finish, or that of one of its choices; or OpenAI's extra chunk with
 * the usage, which comes because the proxy asked for it.
 */
export type EventRole = "part" | "finish" | "usage";

/** Where the events of an answer go. Buffers handed over are never written to again. */
export interface ResponseSink {
  /**
   * One event, whole: `event.subarray(start, end)` are its raw bytes, with the blank line behind it.
   * @param textBytes of the text in it that the model has written, in UTF-8
   * @param parsed its JSON; always there where the answer is collected, else perhaps undefined
   */
  onEvent(event: Buffer, start: number, end: number, textBytes: number, role: EventRole, parsed: unknown): void;
  /** All events of one network read have been handed over. */
  onBatch(): void;
  /** The answer has ended; null where it is complete. Nothing comes after this. */
  onEnd(error: UpstreamError | null): void;
}

/** What the answer has come to so far, for its bill. */
export interface ResponseReport {
  /** As last reported; null until then. */
  readonly usage: ReportedUsage | null;
  /** The prompt, where it is reported before the rest. */
  readonly prompt: PromptUsage | null;
  /** Tokens of output as the text of the events suggests. */
  readonly outputTokens: number;
}

/** Reads one answer from the bytes that the network brings. */
export interface ResponseReader extends ResponseReport {
  /** The first thing that went wrong; nothing is read after it. */
  readonly error: UpstreamError | null;
  /** Whether the answer has said itself that it is over. */
  readonly done: boolean;
  /**
   * How long what may still come is waited for, in ms, where nothing that must come is missing; null where something is.
   * Then end() says whether the answer is over.
   */
  readonly graceMs: number | null;
  /** Whether an event with an `id` was handed on. */
  readonly passesIds: boolean;
  /** The answer in the provider's bytes, where it is one JSON and complete. */
  readonly whole: Buffer | null;
  /** Takes bytes as the network cut them. */
  push(chunk: Buffer): void;
  /**
   * Nothing more comes. Returns what the answer is worth: null where it is complete.
   * @param cut what has ended it, unless the provider closed cleanly
   */
  end(cut?: UpstreamError | null): UpstreamError | null;
}
