import type { Redis } from "../../src/lib/redis/redis.ts";
import { createRedisConcurrency } from "../../src/limits/redis/redis-concurrency.ts";
import { createRedisRateLimiter } from "../../src/limits/redis/redis-rate-limiter.ts";
import { openClockedRedis } from "../support/redis-clock.ts";
import { describeWithRedis, useRedis, useRedisCluster } from "../support/redis-server.ts";
import { describeConcurrency } from "./concurrency.ts";
import { describeRateLimiter } from "./rate-limiter.ts";

describeWithRedis("over one Redis", () => {
  const redis = useRedis();
  describeRateLimiter("the rate limiter", async (rules, clock) =>
    createRedisRateLimiter({ redis: await openClockedRedis(redis.server().url, clock), rules }),
  );
  describeConcurrency("the concurrency limiter", openConcurrency(redis.open));
});

describeWithRedis("over a cluster", () => {
  const cluster = useRedisCluster();
  describeRateLimiter("the rate limiter", async (rules, clock) =>
    createRedisRateLimiter({ redis: await openClockedRedis(cluster.url(), clock), rules }),
  );
  describeConcurrency("the concurrency limiter", openConcurrency(cluster.open));
});

function openConcurrency(open: () => Promise<Redis>): Parameters<typeof describeConcurrency>[1] {
  return async (rule) =>
    createRedisConcurrency({ redis: await open(), rule, leaseMs: 30_000, now: () => performance.now() });
}
