import type { Provider, UpstreamRequest } from "./provider.ts";
import type { ResponseReport } from "./stream/response-reader.ts";
import type { UpstreamError } from "./upstream-error.ts";

/**
 * Follows the attempts of one request at providers, for its trace. Nothing here may throw or wait: it runs in the
 * middle of responses.
 */
export interface RequestTrace {
  /** An attempt begins. @param model the provider's name for it */
  startAttempt(provider: Provider, request: UpstreamRequest, model: string): AttemptTrace;
}

/** Follows one attempt. */
export interface AttemptTrace {
  /** Sent with the request, so that the provider's own spans belong to the same trace. */
  readonly headers: Readonly<Record<string, string>>;
  /** The first data event has arrived. @param ms since the attempt began */
  firstEvent(ms: number): void;
  /** An event has arrived. @param parsed its JSON, if it was parsed */
  event(bytes: Buffer, start: number, end: number, parsed: unknown): void;
  /** The attempt is over. Called exactly once. */
  end(end: AttemptEnd): void;
}

export interface AttemptEnd {
  /** Null if the response is complete, or was cancelled by the proxy. */
  readonly error: UpstreamError | null;
  /** Whether the proxy has ended it, because the client has gone, the budget is used up, or the process stops. */
  readonly cancelled: boolean;
  /** 0 if no response came. */
  readonly status: number;
  readonly report: ResponseReport;
}
