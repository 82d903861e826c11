import { createRedisRateLimiter } from "../../src/limits/redis/redis-rate-limiter.ts";
import { openClockedRedis } from "../support/redis-clock.ts";
import { describeWithRedis, useRedis, useRedisCluster } from "../support/redis-server.ts";
import { describeRateLimiter } from "./rate-limiter.ts";

describeWithRedis("over one Redis", () => {
  const redis = useRedis();
  describeRateLimiter("the rate limiter", async (rules, clock) =>
    createRedisRateLimiter({ redis: await openClockedRedis(redis.server().url, clock), rules }),
  );
});

describeWithRedis("over a cluster", () => {
  const cluster = useRedisCluster();
  describeRateLimiter("the rate limiter", async (rules, clock) =>
    createRedisRateLimiter({ redis: await openClockedRedis(cluster.url(), clock), rules }),
  );
});
