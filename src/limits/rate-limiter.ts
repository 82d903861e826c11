import type { Awaitable } from "../lib/awaitable.ts";

/** The facts of a request that rate limits depend on. */
export interface RateLimitRequest {
  readonly user: string;
  /** The client's address. */
  readonly ip: string;
  readonly model: string;
  /** The id of the request's API key; null if it has none. */
  readonly apiKey: string | null;
}

/** Why a request is rejected. */
export interface RateLimitRefusal {
  /** Name of the rule with the longest wait. From a fixed set, safe as a metric label. */
  readonly rule: string;
  /** ms until that rule allows a request; above 0. */
  readonly retryAfterMs: number;
}

/** Limits the rate of requests. */
export interface RateLimiter {
  /** Takes a token from every rule that applies, or from none. Null if the request may proceed. */
  take(request: RateLimitRequest): Awaitable<RateLimitRefusal | null>;
  /** Gives back the tokens of a request that was not sent after all. */
  giveBack(request: RateLimitRequest): Awaitable<void>;
}
