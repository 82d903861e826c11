import { describe, expect, test } from "vitest";
import { createMemoryRateLimiter, type MemoryRateLimiter } from "../../src/limits/memory/memory-rate-limiter.ts";
import type { RateLimitRequest } from "../../src/limits/rate-limiter.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { rateAsk, refusalIn } from "../support/rates.ts";

const perUser = { name: "user", requestsPerSecond: 1, keyOf: ({ user }: RateLimitRequest) => user };

const take = async (limiter: MemoryRateLimiter, user: string) => refusalIn(await limiter.take(rateAsk({ user })));

describe("memory limiter", () => {
  test("told another rate, keeps each bucket as full as it was, and a rule that went is forgotten", async () => {
    const clock = createManualClock();
    const limiter = createMemoryRateLimiter({ rules: [{ name: "global", requestsPerSecond: 10 }, perUser], clock });
    for (const user of ["a", "a", "b"]) expect(await take(limiter, user)).toBeNull();
    limiter.configure([
      { name: "global", requestsPerSecond: 2 },
      { ...perUser, requestsPerSecond: 0.25 },
    ]);
    // The bucket of "a" was empty and is; that of "b" was half full, and holds one of at most one.
    expect(await take(limiter, "a")).toEqual({ rule: "user", retryAfterMs: 4000 });
    clock.advance(2000);
    expect(await take(limiter, "b")).toBeNull();
    limiter.configure([{ name: "global", requestsPerSecond: 1000 }]);
    for (let i = 0; i < 100; i++) expect(await take(limiter, "a")).toBeNull();
  });

  test("remembers so many keys and forgets the one unused for the longest", async () => {
    const limiter = createMemoryRateLimiter({ rules: [perUser], clock: createManualClock(), maxKeys: 2 });
    await take(limiter, "a");
    await take(limiter, "b");
    await take(limiter, "a");
    await take(limiter, "c");
    expect(await take(limiter, "a")).not.toBeNull();
    expect([await take(limiter, "b"), await take(limiter, "b")]).toEqual([null, null]);
  });
});
