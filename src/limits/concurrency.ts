import type { Awaitable } from "../lib/awaitable.ts";
import type { DisconnectSignal } from "../lib/disconnect-signal.ts";

/** Permission to run one request. */
export interface Permit {
  /** Releases it and wakes the next request in the queue. Later calls do nothing. */
  release(): Awaitable<void>;
}

interface PermitRequest {
  readonly user: string;
  /** Identifies the permit, so that a permit whose result was lost can be recognized. */
  readonly requestId: string;
  /** Most permits the user may hold. May differ between requests; the latest value counts for all that wait. */
  readonly max: number;
}

/** Limits how many requests of a user run at the same time. */
export interface ConcurrencyLimiter {
  /**
   * A permit at once if one is free, else a promise of one: requests of the same user queue, for a bounded time.
   * Throws or rejects with AppError concurrency_exceeded (429) or shutting_down (503), or with ClientDisconnectedError.
   */
  acquire(request: PermitRequest, signal: DisconnectSignal): Awaitable<Permit>;
  /** Permits that requests of this process hold now. */
  inFlight(): number;
  /** Requests of this process that wait for a permit now. */
  waiting(): number;
  /** Rejects all waiting and later requests of this process with shutting_down. Permits already held stay valid. */
  close(): void;
}
