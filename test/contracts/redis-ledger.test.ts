import { createTimedLibrary, openTestRedisLedger, seedTags, withClock } from "../support/redis-ledger.ts";
import {
  describeWithRedis,
  describeWithValkey,
  useRedis,
  useRedisCluster,
  useValkey,
} from "../support/redis-server.ts";
import { describeLedger } from "./ledger.ts";

const library = createTimedLibrary();

for (const [name, describeWith, use] of [
  ["one Redis", describeWithRedis, useRedis],
  ["a cluster of three", describeWithRedis, useRedisCluster],
  ["one Valkey", describeWithValkey, useValkey],
] as const) {
  describeWith(name, () => {
    const { open } = use();
    describeLedger(`the ledger over ${name}`, async (clock) => {
      const redis = withClock(await open({ library }), clock);
      await seedTags(redis);
      return openTestRedisLedger(redis, clock);
    });
  });
}
