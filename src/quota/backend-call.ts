import { AppError } from "../errors.ts";
import type { Awaitable } from "../lib/awaitable.ts";
import { ClientDisconnectedError } from "../lib/disconnect-signal.ts";

/** Calls the ledger, the limiter or the permits. Rejects with what backendError() makes of a failure. */
export async function fromBackend<T>(call: () => Awaitable<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw backendError(error);
  }
}

/**
 * What a failed call of a backend means for the request: a refusal is what it says, a mistake of our own (RangeError)
 * stays one, and everything else, such as a lost connection, is storage_unavailable.
 */
export function backendError(error: unknown): Error {
  if (error instanceof AppError || error instanceof ClientDisconnectedError || error instanceof RangeError)
    return error;
  return new AppError("storage_unavailable", { cause: error, retryAfterSeconds: 1 });
}
