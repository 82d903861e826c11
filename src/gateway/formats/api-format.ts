import type { z } from "zod";
import type { AppError } from "../../errors.ts";
import type { JsonObject } from "../../lib/json-object.ts";
import type { UpstreamRequest } from "../../providers/provider.ts";

/** Collects a response's events into one JSON. */
export interface Collector {
  /**
   * Takes an event.
   * @param parsed its JSON; `event.subarray(start, end)` are its bytes as they came
   * @throws Error if the event doesn't fit the earlier ones, so that the response can't become one JSON; its message
   *   has no text of the response
   */
  add(parsed: unknown, event: Buffer, start: number, end: number): void;
  /**
   * The complete response.
   * @throws Error if something is missing, as in `add`; RangeError, since JSON.parse accepts nesting that JSON.stringify
   *   can't write
   */
  body(): string | Buffer;
  /** The response as far as it has arrived, without a finish reason; null if that can't be given. */
  partial(): string | null;
}

/**
 * The format of an API: how its requests are parsed, and how its responses, their ends and errors look to the client.
 * The stages of a request are the same for all formats. The request's `api` decides the endpoint at the provider and
 * how its events are read.
 */
export interface ApiFormat {
  readonly routes: readonly ApiRoute[];
  /** For OpenAPI only: parse() checks by the same rules. */
  readonly requestSchema: z.ZodType;
  readonly responseSchema: z.ZodType;
  /** What the events of a stream are, in words; undefined if responses can't be streams. */
  readonly streams: string | undefined;
  /**
   * Checks only the fields that the proxy needs and leaves the rest to the provider: unknown fields pass through.
   * Throws AppError invalid_request (400) with the field, the kind of value it has and what is expected.
   * @param streamByDefault the default for `stream` on this route
   */
  parse(body: JsonObject, streamByDefault: boolean): ParsedRequest;
  createCollector(): Collector;
  /**
   * What the proxy itself writes into one stream.
   * @param model as the client names it
   * @param at ms since the epoch
   */
  startStream(model: string, at: number): ClientStream;
  /** The body of an error. */
  readonly errorBody: (error: AppError, traceId: string) => object;
  /** Changes an error that clients of this API would take wrong, such as its status. Default: nothing. */
  readonly adaptError?: (error: AppError) => AppError;
  /**
   * Whether an error that comes before the first event is sent as a stream with status 200, because clients of this API
   * would repeat the request on its own status. Default: never.
   */
  readonly failsAsStream?: (error: AppError) => boolean;
  /** Whether clients try a WebSocket first, at the same paths: a GET is then refused so that they use POST at once. */
  readonly refusesWebSocket?: boolean;
}

/**
 * The proxy's own words in the stream of one response: between two events, and at its end. It may look at the
 * provider's events, so that its own fit in.
 */
export interface ClientStream {
  /** The last bytes of a complete stream, unless the provider's own last event ends it. */
  readonly ending: Buffer;
  /**
   * Bytes without meaning to the client, which keep the connection alive.
   * @param hasIds whether an event with an `id` was passed on: parsers that keep the last id take any blank line for
   * the end of an event, and fail if it had no data
   */
  heartbeat(hasIds: boolean): Buffer;
  /** The last event of a stream that broke off. */
  errorEvent(error: AppError, traceId: string): string;
  /** Sees an event of the provider before it is written, if it was parsed: the first one always is. */
  onEvent?(parsed: unknown): void;
  /** Sees the events of the provider as they are written. The bytes are never modified. */
  onWrite?(events: Buffer): void;
}

/** Where an API is served. */
export interface ApiRoute {
  readonly summary: string;
  readonly paths: readonly string[];
  /** Whether an absent `stream` may mean true; otherwise it means false, as the SDKs expect. */
  readonly mayStreamByDefault?: boolean;
}

/** A request that passed all checks. The body itself goes upstream as it came, with a few members replaced. */
export interface ParsedRequest extends UpstreamRequest {
  readonly model: string;
  /** Whether the client wants SSE rather than one JSON. */
  readonly stream: boolean;
  /** Whether the client asked for OpenAI's extra usage chunk. */
  readonly wantsUsageChunk: boolean;
  /** Most output tokens that the client allows for one choice; null if it sets no limit. */
  readonly maxTokens: number | null;
  /** Size of the body in bytes. */
  readonly bytes: number;
}
