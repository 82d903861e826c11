import { expect, it } from "vitest";
import { RedisUnavailableError } from "../../src/lib/redis/redis.ts";
import type { Permit, PermitRequest } from "../../src/limits/concurrency.ts";
import { createMemoryConcurrency } from "../../src/limits/memory/memory-concurrency.ts";
import { createMemoryRateLimiter } from "../../src/limits/memory/memory-rate-limiter.ts";
import { createConcurrencyWithoutRedis, createRatesWithoutRedis } from "../../src/limits/redis/limits-away.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { perSecond, rateAsk, refusalIn } from "../support/rates.ts";

const rule = { maxWaitMs: 0, maxWaiting: 8, maxWaitingTotal: 100 };
const client = () => ({ gone: false, onGone: undefined });
const request: PermitRequest = {
  requestId: "r",
  user: "alice",
  weight: 1,
  scopes: [
    { kind: "user", key: "alice", max: 8 },
    { kind: "process", key: "", max: 5 },
  ],
  providers: [{ kind: "provider", key: "p", max: 9 }],
};

/** Redis, which is away from the moment on at which somebody notices it. */
function use(processes: number) {
  const state = { isAway: false, isNoticed: false };
  const share = { isServing: () => state.isNoticed, processes: () => processes };
  const answer = <T>(ask: () => T): T => {
    if (!state.isAway) return ask();
    state.isNoticed = true;
    throw new RedisUnavailableError("away");
  };
  return { state, share, answer };
}

it("without Redis each of three processes gives a third of the permits, and at least one", async () => {
  const { state, share, answer } = use(3);
  const memory = createMemoryConcurrency({ rule, now: () => 0 });
  const shared = {
    ...memory,
    acquire: (...given: Parameters<typeof memory.acquire>) => answer(() => memory.acquire(...given)),
  };
  const limiter = createConcurrencyWithoutRedis(shared, rule, share, () => 0);
  const before = await limiter.acquire(request, client());
  state.isAway = true;
  const permits: Permit[] = [];
  for (let i = 0; i < 2; i++) permits.push(await limiter.acquire(request, client()));
  await expect(limiter.acquire(request, client())).rejects.toMatchObject({ code: "concurrency_exceeded" });
  expect(limiter.inFlight()).toBe(3);
  // Failover keeps to the share as well.
  expect(await permits[0]?.move({ kind: "provider", key: "q", max: 1 })).toBe(true);
  expect([permits[0]?.provider, await permits[1]?.move({ kind: "provider", key: "q", max: 5 })]).toEqual(["q", false]);
  for (const permit of [before, ...permits]) await permit.release();
  expect(limiter.inFlight()).toBe(0);
});

it("without Redis each of four processes allows a quarter of a rate", async () => {
  const { state, share, answer } = use(4);
  const clock = createManualClock();
  const rules = [perSecond(10)];
  const memory = createMemoryRateLimiter({ rules, clock });
  const shared = { ...memory, take: (...given: Parameters<typeof memory.take>) => answer(() => memory.take(...given)) };
  const limiter = createRatesWithoutRedis(shared, rules, share, clock);
  const taken = async (): Promise<number> => {
    for (let count = 0; ; count++) if (refusalIn(await limiter.take(rateAsk())) !== null) return count;
  };
  expect(await taken()).toBe(20);
  state.isAway = true;
  expect(await taken()).toBe(5);
  clock.advance(2000);
  expect(await taken()).toBe(5);
  limiter.configure([perSecond(40)]);
  clock.advance(2000);
  expect(await taken()).toBe(20);
});
