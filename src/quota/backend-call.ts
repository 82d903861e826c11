import { AppError } from "../errors.ts";
import type { Awaitable } from "../lib/awaitable.ts";
import { ClientDisconnectedError } from "../lib/disconnect-signal.ts";

/** Calls the ledger, the rate limiter or the concurrency limiter. Rejects with the result of backendError(). */
export async function fromBackend<T>(call: () => Awaitable<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw backendError(error);
  }
}

/**
 * Converts an error of a backend for the request: an AppError stays, a bug (RangeError) stays, and everything else,
 * such as a lost connection, becomes storage_unavailable.
 */
export function backendError(error: unknown): Error {
  if (error instanceof AppError || error instanceof ClientDisconnectedError || error instanceof RangeError)
    return error;
  return new AppError("storage_unavailable", { cause: error, retryAfterSeconds: 1 });
}
