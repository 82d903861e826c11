import { onTestFinished } from "vitest";
import type { Clock } from "../../src/lib/clock.ts";
import { openRedis } from "../../src/lib/redis/open-redis.ts";
import { parseRedisUrl } from "../../src/lib/redis/redis-url.ts";
import type { Redis } from "../../src/lib/redis/redis.ts";
import { createRedisLibrary } from "../../src/redis-library.ts";
import { createCapturedLog } from "./captured-log.ts";
import { newPrefix } from "./redis-server.ts";

/** A connection whose functions of limits see the time of a test's clock; closed at the end of the test. */
export async function openClockedRedis(url: string, clock: Clock, keyPrefix = newPrefix()): Promise<Redis> {
  const library = createRedisLibrary([new URL("./redis-clock.lua", import.meta.url)]);
  const redis = await openRedis({
    target: parseRedisUrl(url),
    library,
    keyPrefix,
    timeoutMs: 5000,
    log: createCapturedLog(),
    monotonic: () => performance.now(),
  });
  onTestFinished(() => redis.close());
  return {
    ...redis,
    call(name, keys, args) {
      // On the same connection, so that it arrives first.
      const time = redis.call("test_clock", [keys[0]], [clock.now()]);
      const answer = redis.call(name, keys, args);
      return Promise.all([time, answer]).then(([, reply]) => reply);
    },
  };
}
