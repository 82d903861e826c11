import { AppError } from "../errors.ts";
import { ClientGoneError } from "../lib/hangup.ts";
import type { Outcome } from "../quota/ledger.ts";
import { UpstreamFault } from "../upstream/faults.ts";
import type { Collector } from "./api-shape.ts";
import type { Departure } from "./client.ts";
import type { Meter } from "./meter.ts";

/** Of an answer that broke off no more is shown, in characters of JSON. */
const maxPartial = 4 << 20;

/** How a chat ended: what the ledger books, and what the client is told. */
export interface Ending {
  readonly outcome: Outcome;
  /** null where the answer is complete, or nobody is left to tell. */
  readonly error: AppError | null;
}

export const completed: Ending = { outcome: "completed", error: null };

/** The provider broke off or failed. */
export function endingOfFault(fault: UpstreamFault): Ending {
  return { outcome: "upstream_failed", error: fault.toAppError() };
}

/** The provider's answer broke off because the client was slow to read it: that is no fault of the provider. */
export function endingOfSlowReader(fault: UpstreamFault): Ending {
  return { outcome: "reader_stalled", error: fault.toAppError() };
}

/** Adds to an error what had arrived of the answer, under `details.partial`; null where that is too large to be sent. */
export function withPartial(ending: Ending, collector: Collector): Ending {
  if (ending.error === null) return ending;
  const { code, message, extras } = ending.error;
  const details = { ...extras.details, partial: partialOf(collector) };
  return { ...ending, error: new AppError(code, { ...extras, message, details }) };
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
export function endingOfDeparture(departure: Departure): Ending {
  return {
    outcome: departure,
    error: departure === "shutdown" ? new AppError("shutting_down", { retryAfterSeconds: 1 }) : null,
  };
}

/** The user's budget ran out in mid-stream. */
export function endingOfCut({ blocked }: Meter): Ending {
  const details = blocked === null ? {} : { details: { metric: blocked.metric, per: blocked.per } };
  return { outcome: "quota_cut", error: new AppError("quota_exceeded_midstream", details) };
}

/**
 * Makes an ending of whatever a stage threw.
 * @param departure the client's, if it has departed
 */
export function endingOfError(error: unknown, departure: Departure | null): Ending {
  if (error instanceof ClientGoneError && departure !== null) return endingOfDeparture(departure);
  if (error instanceof UpstreamFault) return endingOfFault(error);
  if (error instanceof AppError) return { outcome: "refused", error };
  return { outcome: "upstream_failed", error: new AppError("internal_error", { cause: error }) };
}
