import { createTimedLibrary, openTestRedisLedger, seedTags, withClock } from "../support/redis-ledger.ts";
import { describeWithRedis, useRedis, useRedisCluster } from "../support/redis-server.ts";
import { describeLedger } from "./ledger.ts";

const library = createTimedLibrary();

for (const [name, use] of Object.entries({ "one Redis": useRedis, "a cluster of three": useRedisCluster })) {
  describeWithRedis(name, () => {
    const { open } = use();
    describeLedger(`the ledger over ${name}`, async (clock) => {
      const redis = withClock(await open({ library }), clock);
      await seedTags(redis);
      return openTestRedisLedger(redis, clock);
    });
  });
}
