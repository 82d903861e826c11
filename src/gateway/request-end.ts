import { AppError } from "../errors.ts";
import { ClientDisconnectedError } from "../lib/disconnect-signal.ts";
import type { Outcome } from "../quota/ledger.ts";
import { UpstreamError } from "../providers/upstream-error.ts";
import type { Collector } from "./formats/api-format.ts";
import type { DisconnectReason } from "./response-writer.ts";
import type { BudgetGuard } from "./budget-guard.ts";

/** The largest partial response that is sent with an error, in characters of JSON. */
const maxPartial = 4 << 20;

/** How a request ended: the outcome for the ledger, and the error for the client. */
export interface RequestEnd {
  readonly outcome: Outcome;
  /** null if the response is complete or the client has gone. */
  readonly error: AppError | null;
}

export const completed: RequestEnd = { outcome: "completed", error: null };

/** The provider failed or broke off. */
export function endOfUpstreamError(error: UpstreamError): RequestEnd {
  return { outcome: "upstream_failed", error: error.toAppError() };
}

/** The response broke off because the client was slow to read it: that does not count against the provider. */
export function endOfSlowReader(error: UpstreamError): RequestEnd {
  return { outcome: "reader_stalled", error: error.toAppError() };
}

/** Adds the part of the response that arrived as `details.partial`; null if it is too large to be sent. */
export function withPartial(end: RequestEnd, collector: Collector): RequestEnd {
  if (end.error === null) return end;
  const { code, message, extras } = end.error;
  const details = { ...extras.details, partial: partialOf(collector) };
  return { ...end, error: new AppError(code, { ...extras, message, details }) };
}

/** Whether the error holds the part of the response that arrived. */
export function hasPartial(error: AppError | null): boolean {
  const partial = error?.extras.details?.partial;
  return partial !== undefined && partial !== null;
}

function partialOf(collector: Collector): unknown {
  try {
    const partial = collector.partial();
    return partial === null || partial.length > maxPartial ? null : JSON.parse(partial);
  } catch {
    // JSON.parse accepts nesting that overflows JSON.stringify.
    return null;
  }
}

/** The request ended on our side: the client disconnected or stopped reading, or the proxy is shutting down. */
export function endOfDisconnect(reason: DisconnectReason): RequestEnd {
  return {
    outcome: reason,
    error: reason === "shutdown" ? new AppError("shutting_down", { retryAfterSeconds: 1 }) : null,
  };
}

/** The user's budget ran out in mid-stream. */
export function endOfBudget({ blocked }: BudgetGuard): RequestEnd {
  const details = blocked === null ? {} : { details: { metric: blocked.metric, per: blocked.per } };
  return { outcome: "quota_cut", error: new AppError("quota_exceeded_midstream", details) };
}

/**
 * The end of a request in which a stage threw.
 * @param reason why the client is gone; null if it is not
 */
export function endOfError(error: unknown, reason: DisconnectReason | null): RequestEnd {
  if (error instanceof ClientDisconnectedError && reason !== null) return endOfDisconnect(reason);
  if (error instanceof UpstreamError) return endOfUpstreamError(error);
  if (error instanceof AppError) return { outcome: "refused", error };
  return { outcome: "upstream_failed", error: new AppError("internal_error", { cause: error }) };
}
