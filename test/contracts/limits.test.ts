import { createMemoryConcurrency } from "../../src/limits/memory/memory-concurrency.ts";
import { createMemoryRateLimiter } from "../../src/limits/memory/memory-rate-limiter.ts";
import { delayed } from "../support/backends.ts";
import { describeConcurrency } from "./concurrency.ts";
import { describeRateLimiter } from "./rate-limiter.ts";

const openRateLimiter: Parameters<typeof describeRateLimiter>[1] = (rules, clock) =>
  Promise.resolve(createMemoryRateLimiter({ rules, clock }));
describeRateLimiter("the rate limiter in memory", openRateLimiter);
describeRateLimiter("the rate limiter in memory, 3 ms late", delayed(openRateLimiter));

const openConcurrency: Parameters<typeof describeConcurrency>[1] = (rule) =>
  Promise.resolve(createMemoryConcurrency({ rule, now: () => performance.now() }));
describeConcurrency("the concurrency limiter in memory", openConcurrency);
describeConcurrency("the concurrency limiter in memory, 3 ms late", delayed(openConcurrency));
