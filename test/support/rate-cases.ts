import { fc } from "./fast-check.ts";
import type { RateLimitRequest, RateUse } from "../../src/limits/rate-limiter.ts";
import type { RateRule } from "../../src/limits/rate-rules.ts";
import { perSecond, rateAsk } from "./rates.ts";

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

/** What a client does of a limiter, or the time that passes. */
export type RateStep =
  | { readonly take: RateLimitRequest; readonly obeys?: boolean }
  | { readonly move: number; readonly to: string }
  | { readonly settle: number; readonly use: RateUse }
  | { readonly ms: number };

export const someMove: fc.Arbitrary<RateStep> = fc.record({ move: fc.nat(50), to: fc.constantFrom("p", "q", "r") });

/** A rule of tokens that one user meets again and again: its buckets are as good as full most of the time. */
export const someTokenRule: fc.Arbitrary<Omit<RateRule, "name">> = fc
  .record({
    by: fc.constantFrom<RateRule["by"][]>([], ["user"], ["provider"]),
    max: fc.integer({ min: 500, max: 3000 }),
    burst: fc.integer({ min: 100, max: 1000 }),
  })
  .map((some) => perSecond(1, { metric: "tokens", perMs: 60_000, ...some }));

/** It takes a large part of such a rule's burst, or all of it. */
const someLargeTake: fc.Arbitrary<RateStep> = fc
  .record({
    providers: fc.shuffledSubarray(["p", "q", "r"], { minLength: 1 }),
    tokens: fc.integer({ min: 50, max: 1500 }),
  })
  .map((some) => ({ take: rateAsk({ ...some, isOwnBound: true }) }));

const someSmallUse: fc.Arbitrary<RateUse> = fc.record({
  wasSent: fc.boolean(),
  tokens: fc.integer({ min: 0, max: 100 }),
  outputTokens: fc.constant(0),
});

/** Requests that are held while what they took flows off; then they end, and others begin at once. */
export const someHeldSteps: fc.Arbitrary<readonly RateStep[]> = fc
  .array(
    fc.oneof(
      fc.array(fc.tuple(someLargeTake, fc.record({ ms: fc.nat(60_000) })), { minLength: 2, maxLength: 6 }),
      fc.array(
        fc.tuple(
          fc.record({ settle: fc.nat(50), use: someSmallUse }),
          someLargeTake,
          fc.record({ ms: fc.oneof(fc.constant(0), fc.nat(500)) }),
        ),
        { minLength: 2, maxLength: 6 },
      ),
      fc.array(fc.tuple(someMove), { minLength: 1, maxLength: 2 }),
    ),
    { minLength: 2, maxLength: 12 },
  )
  .map((blocks) => blocks.flat(2));
