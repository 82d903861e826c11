import type { RateLimitRefusal, RateLimitRequest, RateTicket, RateUse } from "../../src/limits/rate-limiter.ts";
import type { RateRule } from "../../src/limits/rate-rules.ts";

/** A request as rate limits see it. */
export function rateAsk(some: Partial<RateLimitRequest> = {}): RateLimitRequest {
  return {
    requestId: "r",
    user: "alice",
    tier: "basic",
    group: null,
    apiKey: null,
    ip: "192.0.2.1",
    model: "m",
    upstreamModel: "m",
    providers: ["p"],
    tokens: 0,
    outputTokens: 0,
    isOwnBound: false,
    factor: 1,
    ...some,
  };
}

/** A rule of requests per second, with bursts of two seconds. */
export function perSecond(max: number, some: Partial<RateRule> = {}): RateRule {
  return {
    name: "global",
    by: [],
    metric: "requests",
    max,
    perMs: 1000,
    burst: 2 * max,
    models: null,
    tiers: null,
    groups: null,
    weights: {},
    isShown: true,
    ofGroup: null,
    ...some,
  };
}

export const unsent: RateUse = { wasSent: false, tokens: 0, outputTokens: 0 };

/** The ticket of a take; fails where it was refused. */
export function ticketOf(taken: RateTicket | RateLimitRefusal): RateTicket {
  if (!("settle" in taken)) throw new Error(`refused by ${taken.rule}`);
  return taken;
}

/** Rule and wait of a refusal; null: there was none. */
export function refusalIn(
  taken: RateTicket | RateLimitRefusal,
): Pick<RateLimitRefusal, "rule" | "retryAfterMs"> | null {
  return "settle" in taken ? null : { rule: taken.rule, retryAfterMs: taken.retryAfterMs };
}
