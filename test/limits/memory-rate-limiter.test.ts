import { describe, expect, test } from "vitest";
import { createMemoryRateLimiter } from "../../src/limits/memory/memory-rate-limiter.ts";
import type { RateLimitRequest } from "../../src/limits/rate-limiter.ts";
import { createManualClock } from "../support/manual-clock.ts";

const ask = (user = "alice"): RateLimitRequest => ({ requestId: "r", user, ip: "192.0.2.1", model: "m", apiKey: null });
const perUser = { name: "user", requestsPerSecond: 1, keyOf: ({ user }: RateLimitRequest) => user };

describe("memory limiter", () => {
  test("told another rate, keeps each bucket as full as it was, and a rule that went is forgotten", () => {
    const clock = createManualClock();
    const limiter = createMemoryRateLimiter({ rules: [{ name: "global", requestsPerSecond: 10 }, perUser], clock });
    for (const user of ["a", "a", "b"]) expect(limiter.take(ask(user))).toBeNull();
    limiter.configure([
      { name: "global", requestsPerSecond: 2 },
      { ...perUser, requestsPerSecond: 0.25 },
    ]);
    // The bucket of "a" was empty and is; that of "b" was half full, and holds one of at most one.
    expect(limiter.take(ask("a"))).toEqual({ rule: "user", retryAfterMs: 4000 });
    clock.advance(2000);
    expect(limiter.take(ask("b"))).toBeNull();
    limiter.configure([{ name: "global", requestsPerSecond: 1000 }]);
    for (let i = 0; i < 100; i++) expect(limiter.take(ask("a"))).toBeNull();
  });

  test("remembers so many keys and forgets the one unused for the longest", () => {
    const limiter = createMemoryRateLimiter({ rules: [perUser], clock: createManualClock(), maxKeys: 2 });
    void limiter.take(ask("a"));
    void limiter.take(ask("b"));
    void limiter.take(ask("a"));
    void limiter.take(ask("c"));
    expect(limiter.take(ask("a"))).not.toBeNull();
    expect([limiter.take(ask("b")), limiter.take(ask("b"))]).toEqual([null, null]);
  });
});
