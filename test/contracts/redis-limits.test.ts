import type { Redis } from "../../src/lib/redis/redis.ts";
import { createRedisConcurrency } from "../../src/limits/redis/redis-concurrency.ts";
import { createRedisRateLimiter } from "../../src/limits/redis/redis-rate-limiter.ts";
import { openClockedRedis } from "../support/redis-clock.ts";
import {
  describeWithRedis,
  describeWithValkey,
  useRedis,
  useRedisCluster,
  useValkey,
} from "../support/redis-server.ts";
import { describeConcurrency } from "./concurrency.ts";
import { describeRateLimiter } from "./rate-limiter.ts";

for (const [name, describeWith, use] of [
  ["over one Redis", describeWithRedis, useRedis],
  ["over one Valkey", describeWithValkey, useValkey],
] as const) {
  describeWith(name, () => {
    const redis = use();
    describeRateLimiter("the rate limiter", async (rules, clock) =>
      createRedisRateLimiter({ redis: await openClockedRedis(redis.server().url, clock), rules }),
    );
    describeConcurrency("the concurrency limiter", openConcurrency(redis.open));
  });
}

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
