import type { Awaitable } from "../lib/awaitable.ts";
import type { RateMetric } from "./rate-names.ts";

/** The facts of a request that rate limits depend on. */
export interface RateLimitRequest {
  /** Identifies the take: where its result is lost, an implementation may repeat its call with it. */
  readonly requestId: string;
  readonly user: string;
  readonly tier: string;
  /** The group it counts for; null: none. */
  readonly group: string | null;
  /** The id of the request's API key; null if it has none. */
  readonly apiKey: string | null;
  /** The client's address, as ipPrefix gives it. */
  readonly ip: string;
  /** As the client names it. */
  readonly model: string;
  /** After aliases. */
  readonly upstreamModel: string;
  /** The names of the providers that may get it, distinct, in the order in which they are tried; at least one. */
  readonly providers: readonly string[];
  /** Upper bounds; safe integers, at least 0. */
  readonly tokens: number;
  readonly outputTokens: number;
  /** Whether the client sent no max_tokens, so that the bound is the proxy's guess. */
  readonly isOwnBound: boolean;
  /** How much faster than others its user may be, above 0; only rules by user or by key use it. */
  readonly factor: number;
}

/** One rule as a request has found or left it. */
export interface RateLimitState {
  readonly rule: string;
  readonly metric: RateMetric;
  /** Units in each window. */
  readonly max: number;
  readonly windowSeconds: number;
  /** Whole units that may be taken now. */
  readonly remaining: number;
  /** ms until nothing counts as taken; of a rule that refuses, until it allows the request. */
  readonly resetMs: number;
}

/** Why a request is rejected. */
export interface RateLimitRefusal {
  /** Name of the rule with the longest wait. */
  readonly rule: string;
  /** ms until all rules that refuse allow the request; above 0. */
  readonly retryAfterMs: number;
  /** null: it may pass later. Otherwise it needs more than the rule ever allows at once. */
  readonly tooLarge: { readonly metric: RateMetric; readonly needed: number; readonly most: number } | null;
  readonly states: readonly RateLimitState[];
}

/** What a request has used in the end. */
export interface RateUse {
  /** False if no provider was sent it: then it has used nothing. */
  readonly wasSent: boolean;
  /** Safe integers, at least 0. */
  readonly tokens: number;
  readonly outputTokens: number;
}

/** What one request has taken of the rules. */
export interface RateTicket {
  /** The rules right after the take. */
  readonly states: readonly RateLimitState[];
  /** Whose rules were taken from, if some rules are by provider: the request must try it first. Otherwise null. */
  readonly provider: string | null;
  /**
   * For failover: takes from the rules of another provider, all or none, and gives back what was taken from those of the
   * former one. Null: done, or no rule is by provider. Otherwise nothing has changed, and the request must not be sent
   * there. Not after settle.
   */
  move(provider: string): Awaitable<RateLimitRefusal | null>;
  /**
   * Corrects what was taken to what was used. What had flowed off already is put back within bounds only: one burst at
   * once. Exactly once: later calls do nothing. A limiter in memory never throws here; where a call is lost, what was
   * taken lapses with time.
   */
  settle(use: RateUse): Awaitable<void>;
}

/** A rule and what has become of it, for operators. */
export interface RateRuleStatus {
  readonly name: string;
  /** Empty: one bucket for all. */
  readonly by: readonly string[];
  readonly metric: RateMetric;
  readonly max: number;
  readonly windowSeconds: number;
  readonly burst: number;
  /** null: all; the same for tiers and groups. */
  readonly models: readonly string[] | null;
  readonly tiers: readonly string[] | null;
  readonly groups: readonly string[] | null;
  /** Buckets with something taken. */
  readonly buckets: number;
  /** Buckets that were forgotten too early, since there were too many. */
  readonly evicted: number;
  /** Requests that it has refused, or kept from a provider in a failover. */
  readonly refused: number;
}

/** Limits the rate of requests, and of what users may do free of charge only so often. */
export interface RateLimiter {
  /** Takes from every rule that applies, or from none. A result with `settle` is a ticket: the request may proceed. */
  take(request: RateLimitRequest): Awaitable<RateTicket | RateLimitRefusal>;
  /**
   * Counts a request that a user has ended without paying for it: before its first event, or without getting what was
   * generated. False, without counting it, if the user has done so `max` times within the last hour.
   */
  takeFreeDisconnect(
    request: Pick<RateLimitRequest, "user" | "requestId"> & { readonly max: number },
  ): Awaitable<boolean>;
  /** All rules, for operators. Looks at every bucket. */
  rules(): Awaitable<readonly RateRuleStatus[]>;
  /** What such a request would find, without those by provider. Takes nothing. */
  statesOf(request: RateLimitRequest): Awaitable<readonly RateLimitState[]>;
}
