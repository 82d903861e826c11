import { onTestFinished } from "vitest";
import type { Clock } from "../../src/lib/clock.ts";
import { createLibrary } from "../../src/lib/redis/library.ts";
import { openRedis } from "../../src/lib/redis/open-redis.ts";
import { parseRedisUrl } from "../../src/lib/redis/redis-url.ts";
import type { Redis } from "../../src/lib/redis/redis.ts";
import { createCapturedLog } from "./captured-log.ts";
import { newPrefix } from "./redis-server.ts";

const part = (path: string) => new URL(path, import.meta.url);

/** A connection whose functions of limits see the time of a test's clock; closed at the end of the test. */
export async function openClockedRedis(url: string, clock: Clock, keyPrefix = newPrefix()): Promise<Redis> {
  const library = createLibrary([part("../../src/limits/redis/rates.lua"), part("./redis-time.lua")]);
  const redis = await openRedis({
    ...{ target: parseRedisUrl(url), library, keyPrefix, timeoutMs: 5000 },
    log: createCapturedLog(),
    monotonic: () => performance.now(),
  });
  onTestFinished(() => redis.close());
  return {
    ...redis,
    call(name, keys, args) {
      // On the same connection, so that it arrives first.
      const time = redis.call("test_time", [keys[0]], [clock.now()]);
      const answer = redis.call(name, keys, args);
      return Promise.all([time, answer]).then(([, reply]) => reply);
    },
  };
}
