import { AppError } from "../errors.ts";
import { ClientDisconnectedError } from "../lib/disconnect-signal.ts";
import type { Outcome } from "../quota/ledger.ts";
import { UpstreamError } from "../providers/upstream-error.ts";
import type { Collector } from "./formats/api-format.ts";
import type { DisconnectReason } from "./response-writer.ts";
import type { BudgetGuard } from "./budget-guard.ts";

/** Of an answer that broke off no more is shown, in characters of JSON. */
const maxPartial = 4 << 20;

/** How a chat ended: what the ledger books, and what the client is told. */
export interface RequestEnd {
  readonly outcome: Outcome;
  /** null where the answer is complete, or nobody is left to tell. */
  readonly error: AppError | null;
}

export const completed: RequestEnd = { outcome: "completed", error: null };

/** The provider broke off or failed. */
export function endOfUpstreamError(error: UpstreamError): RequestEnd {
  return { outcome: "upstream_failed", error: error.toAppError() };
}

/** The provider's answer broke off because the client was slow to read it: that is no fault of the provider. */
export function endOfSlowReader(error: UpstreamError): RequestEnd {
  return { outcome: "reader_stalled", error: error.toAppError() };
}

/** Adds to an error what had arrived of the answer, under `details.partial`; null where that is too large to be sent. */
export function withPartial(end: RequestEnd, collector: Collector): RequestEnd {
  if (end.error === null) return end;
  const { code, message, extras } = end.error;
  const details = { ...extras.details, partial: partialOf(collector) };
  return { ...end, error: new AppError(code, { ...extras, message, details }) };
}

/** Whether the error holds what had arrived of the answer. */
export function hasPartial(error: AppError | null): boolean {
  const partial = error?.extras.details?.partial;
  return partial !== undefined && partial !== null;
}

function partialOf(collector: Collector): unknown {
  try {
    const partial = collector.partial();
    return partial === null || partial.length > maxPartial ? null : JSON.parse(partial);
  } catch {
    // JSON.parse takes nesting that JSON.stringify overflows on.
    return null;
  }
}

/** The proxy's side ended it: the client left, stopped reading, or the proxy is stopping. */
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
 * Makes an end of whatever a stage threw.
 * @param reason the client's, if it has departed
 */
export function endOfError(error: unknown, reason: DisconnectReason | null): RequestEnd {
  if (error instanceof ClientDisconnectedError && reason !== null) return endOfDisconnect(reason);
  if (error instanceof UpstreamError) return endOfUpstreamError(error);
  if (error instanceof AppError) return { outcome: "refused", error };
  return { outcome: "upstream_failed", error: new AppError("internal_error", { cause: error }) };
}
