import type { AppError } from "../../errors.ts";
import type { JsonObject } from "../../lib/json-object.ts";
import type { UpstreamRequest } from "../../providers/provider.ts";

/** Makes one JSON of an answer's events. */
export interface Collector {
  /**
   * Takes an event.
   * @param parsed its JSON; `event.subarray(start, end)` are its bytes as they came
   * @throws Error, without any text of the answer in its message, where the event doesn't fit what came before: then
   *   there is no one JSON of the answer
   */
  add(parsed: unknown, event: Buffer, start: number, end: number): void;
  /** The whole answer, as the client gets it. May throw RangeError: JSON.parse takes nesting that is not written back. */
  body(): string | Buffer;
  /** The same of the answer as far as it has come, without a word on why it would be over; null where there is none. */
  partial(): string | null;
}

/**
 * The shape of an API: how its requests are read, and how its answers, their ends and errors look to the client. The
 * story of a request is the same for all of them. How providers are asked, and their events read, is told by the
 * request's `api`.
 */
export interface ApiFormat {
  /**
   * Checks by hand what the proxy needs and leaves the rest to the provider: unknown fields pass through.
   * Throws AppError invalid_request (400) naming the field, what came and what would be right.
   * @param streamByDefault what an absent `stream` means on this route
   */
  parse(body: JsonObject, streamByDefault: boolean): ParsedRequest;
  createCollector(): Collector;
  /** The last bytes of a complete stream. */
  readonly ending: Buffer;
  /** A sign of life that means nothing, between two events of a stream. */
  readonly heartbeat: Buffer;
  /**
   * The same once an event with an `id` was passed on: parsers that keep the last id take any blank line for the end of
   * an event, and fail on it where there was no data.
   */
  readonly heartbeatAfterIds: Buffer;
  /** The body of an error. */
  readonly errorBody: (error: AppError, traceId: string) => object;
  /** The last event of a stream that broke off. */
  errorEvent(error: AppError, traceId: string): string;
}

/** A request that passed all checks. The body itself goes upstream as it came, with a few members replaced. */
export interface ParsedRequest extends UpstreamRequest {
  readonly model: string;
  /** Whether the client wants SSE; else one JSON. */
  readonly stream: boolean;
  /** Whether the client asked for OpenAI's extra usage chunk. */
  readonly wantsUsageChunk: boolean;
  /** Most tokens of output that the client allows, for one choice; null where it names none. */
  readonly maxTokens: number | null;
  /** Size of the body in bytes. */
  readonly bytes: number;
}
