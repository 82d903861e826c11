import { fc } from "./fast-check.ts";
import type { RateLimitRequest, RateUse } from "../../src/limits/rate-limiter.ts";
import type { RateRule } from "../../src/limits/rate-rules.ts";
import { rateAsk } from "./rates.ts";

const scopes = ["user", "key", "group", "tier", "address", "model", "provider"] as const;
const models = ["small", "large"];

/** Any rule, without a name. */
export const someRule: fc.Arbitrary<Omit<RateRule, "name">> = fc.record({
  by: fc.subarray([...scopes], { maxLength: 3 }),
  metric: fc.constantFrom("requests", "tokens", "output_tokens"),
  max: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 3000 }), fc.constant(999_999_937)),
  perMs: fc.constantFrom(1000, 60_000, 3_600_000),
  burst: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 3000 })),
  models: fc.option(fc.subarray(models, { minLength: 1 }), { freq: 4 }),
  tiers: fc.option(fc.constant(["basic"]), { freq: 4 }),
  groups: fc.option(fc.constant(["lab"]), { freq: 4 }),
  weights: fc.constantFrom({}, { large: 3 }, { small: 0, large: 2 }),
  isShown: fc.constant(true),
  ofGroup: fc.constant(null),
});

/** Any request. */
export const someRequest: fc.Arbitrary<RateLimitRequest> = fc
  .record({
    user: fc.constantFrom("alice", "bob"),
    tier: fc.constantFrom("basic", "pro"),
    group: fc.constantFrom(null, "lab", "ops"),
    apiKey: fc.constantFrom(null, "k1", "k2"),
    ip: fc.constantFrom("192.0.2.1", "192.0.2.2"),
    model: fc.constantFrom(...models),
    upstreamModel: fc.constantFrom(...models),
    providers: fc.shuffledSubarray(["p", "q", "r"], { minLength: 1 }),
    tokens: fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 4000 })),
    outputTokens: fc.integer({ min: 0, max: 20 }),
    isOwnBound: fc.boolean(),
  })
  .map((some) => rateAsk(some));

/** Any use. */
export const someUse: fc.Arbitrary<RateUse> = fc.record({
  wasSent: fc.boolean(),
  tokens: fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 9000 })),
  outputTokens: fc.integer({ min: 0, max: 40 }),
});
