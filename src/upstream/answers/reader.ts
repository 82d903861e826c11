import type { UpstreamFault } from "../faults.ts";
import type { PromptUsage, ReportedUsage } from "../providers/provider.ts";

/** Where the events of an answer go. Buffers handed over are never written to again. */
export interface AnswerSink {
  /**
   * One event, whole: `event.subarray(start, end)` are its raw bytes, with the blank line behind it.
   * @param tokens of output, as its size suggests
   * @param usageOnly true for the extra chunk that OpenAI sends because the proxy asked for usage
   * @param parsed its JSON; always there where the answer is collected, else perhaps undefined
   */
  onEvent(event: Buffer, start: number, end: number, tokens: number, usageOnly: boolean, parsed: unknown): void;
  /** All events of one network read have been handed over. */
  onBatch(): void;
  /** The answer has ended; null where it is complete. Nothing comes after this. */
  onEnd(fault: UpstreamFault | null): void;
}

/** What the answer has come to so far, for its bill. */
export interface AnswerReport {
  /** As last reported; null until then. */
  readonly usage: ReportedUsage | null;
  /** The prompt, where it is reported before the rest. */
  readonly prompt: PromptUsage | null;
  /** Tokens of output as the events suggest: one an event, more where an event is large. */
  readonly outputTokens: number;
}

/** Reads one answer from the bytes that the network brings. */
export interface Reader extends AnswerReport {
  /** What the provider must call its answer. */
  readonly mediaType: string;
  /** The first thing that went wrong; nothing is read after it. */
  readonly fault: UpstreamFault | null;
  /** Whether the answer has said itself that it is over. */
  readonly done: boolean;
  /** Takes bytes as the network cut them. */
  push(chunk: Buffer): void;
  /** The provider closed cleanly. Returns what the answer is worth: null where it is complete. */
  end(): UpstreamFault | null;
}
