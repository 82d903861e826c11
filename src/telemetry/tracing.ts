import type { GatewayTrace } from "../gateway/request-context.ts";
import { parseTraceContext, traceHeaders, type TraceContext } from "../lib/trace-context.ts";
import type { AttemptTrace } from "../providers/attempt-trace.ts";

/** A request as it arrives. */
export interface ArrivingRequest {
  readonly method: string;
  /** The path without the query. */
  readonly path: string;
  /** The pattern of its route; undefined if none matches. */
  readonly route: string | undefined;
  /** The address of the client. */
  readonly ip: string;
  /** Its X-Request-ID. */
  readonly requestId: string;
  /** With names in lower case. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** Follows one request from its arrival to the end of its response. Nothing here throws or waits. */
export interface ServerTrace extends GatewayTrace {
  /** The response is over. @param user the authenticated one; null: nobody */
  responded(status: number, user: string | null): void;
}

/** What has become of the spans so far. */
export interface SpanCounts {
  readonly queued: number;
  readonly exported: number;
  /** By reason. */
  readonly dropped: Readonly<Record<"queue_full" | "export_failed", number>>;
}

export interface Tracing {
  /** Begins the trace of a request; null: it has none. Called once for each, at its arrival. */
  begin(request: ArrivingRequest): ServerTrace | null;
  /** Whether ServerTrace.responded has to be called. */
  readonly records: boolean;
  /** Undefined: nothing is exported. */
  readonly counts: (() => SpanCounts) | undefined;
  /** Sends what is queued, within a few seconds. Never rejects. */
  close(): Promise<void>;
}

/** Records nothing. The context of a request is passed on to its provider as it came. */
export const passThroughTracing: Tracing = {
  begin({ headers }) {
    if (headers.traceparent === undefined) return null;
    const context = parseTraceContext(headers);
    return context === null ? null : passThrough(context);
  },
  records: false,
  counts: undefined,
  close: () => Promise.resolve(),
};

function passThrough(context: TraceContext): ServerTrace {
  const attempt: AttemptTrace = { headers: traceHeaders(context), firstEvent: ignore, event: ignore, end: ignore };
  return {
    traceId: context.traceId,
    startAttempt: () => attempt,
    admitted: ignore,
    finished: ignore,
    responded: ignore,
  };
}

function ignore(): void {
  // Nothing is recorded.
}
