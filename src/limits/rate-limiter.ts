import type { Awaitable } from "../lib/awaitable.ts";

/** The facts of a request that rate limits depend on. */
export interface RateLimitRequest {
  /** Identifies the take: what a request has taken is given back at most once. */
  readonly requestId: string;
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

/** Limits the rate of requests, and of what users may do free of charge only so often. */
export interface RateLimiter {
  /** Takes a token from every rule that applies, or from none. Null if the request may proceed. */
  take(request: RateLimitRequest): Awaitable<RateLimitRefusal | null>;
  /** Gives back the tokens of a request that was not sent after all. */
  giveBack(request: RateLimitRequest): Awaitable<void>;
  /**
   * Counts a request that a user has ended without paying for it: before its first event, or without getting what was
   * generated. False, without counting it, if the user has done so `max` times within the last hour.
   */
  takeFreeDisconnect(
    request: Pick<RateLimitRequest, "user" | "requestId"> & { readonly max: number },
  ): Awaitable<boolean>;
}
