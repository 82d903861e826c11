import type { Awaitable } from "../lib/awaitable.ts";

/** Who asks for what. */
export interface RateLimitRequest {
  readonly user: string;
  /** The client's address. */
  readonly ip: string;
  readonly model: string;
  /** The id of the API key that it comes through; null where there is none. */
  readonly apiKey: string | null;
}

/** Why a request may not go on now. */
export interface RateLimitRefusal {
  /** Name of the rule that has to be waited for the longest. From a fixed set, safe as a metric label. */
  readonly rule: string;
  /** ms until that rule lets one through; above 0. */
  readonly retryAfterMs: number;
}

/** How many requests may come in a time. */
export interface RateLimiter {
  /** Takes a token from every rule that applies, or from none. Null where the request may go on. */
  take(request: RateLimitRequest): Awaitable<RateLimitRefusal | null>;
  /** Gives back what was taken for a request of which nothing was sent in the end. */
  giveBack(request: RateLimitRequest): Awaitable<void>;
}
