import type { Awaitable } from "../lib/awaitable.ts";
import type { DisconnectSignal } from "../lib/disconnect-signal.ts";

/** The right to run one chat. */
export interface Permit {
  /** Gives it back, and wakes the next in line. Later calls do nothing. */
  release(): void;
}

interface PermitRequest {
  readonly user: string;
  /** How many the user may hold now. May differ from one ask to the next; the latest counts for all who wait. */
  readonly max: number;
}

/** How many chats of a user may run at the same time. */
export interface ConcurrencyLimiter {
  /**
   * A permit at once where one is free, else a promise of one: users' own requests wait in line, for a bounded time.
   * Throws or rejects with AppError concurrency_exceeded (429) or shutting_down (503), or with ClientDisconnectedError.
   */
  acquire(request: PermitRequest, signal: DisconnectSignal): Awaitable<Permit>;
  /** Permits held now, of all users. */
  inFlight(): number;
  /** Requests that wait for a permit now, of all users. */
  waiting(): number;
  /** Refuses all who wait, and all who come later, with shutting_down. Permits that are held stay valid. */
  close(): void;
}
