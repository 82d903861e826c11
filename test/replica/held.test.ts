import { expect, it } from "vitest";
import type { BucketState, QuotaLimit } from "../../src/quota/ledger.ts";
import { eventually } from "../support/eventually.ts";
import { charge, settlement } from "../support/ledger.ts";
import { describeWithRedis, newPrefix, startRedisServer, useRedis } from "../support/redis-server.ts";
import { openReplicaNode, type ReplicaNode } from "../support/replica-node.ts";

const tokens: QuotaLimit = { metric: "tokens", per: "total", max: 100 };
const limits = [tokens, { ...tokens, group: "red" }, { ...tokens, apiKey: "key-1" }];
const request = { user: "alice", group: "red", apiKey: "key-1", limits, requestId: "r", model: "m" };

/** What is used and held of each limit. */
async function stateOf({ ledger }: ReplicaNode): Promise<readonly (readonly number[])[]> {
  const buckets: readonly BucketState[] = await ledger.buckets("alice", limits);
  return buckets.map(({ used, reserved }) => [used, reserved]);
}

const three = (used: number, reserved: number) => limits.map(() => [used, reserved]);

describeWithRedis("what running requests hold", () => {
  const redis = useRedis();

  it("is held again before anything is sold where Redis has lost everything, and given back at their end", async () => {
    const server = await startRedisServer();
    try {
      const keyPrefix = newPrefix();
      const [one, two] = [
        await openReplicaNode({ url: server.url, keyPrefix }),
        await openReplicaNode({ url: server.url, keyPrefix }),
      ];
      const waiting = await one.ledger.reserve({ ...request, upperBound: charge(1, 40) });
      const running = await one.ledger.reserve({ ...request, upperBound: charge(1, 20) });
      await running.commit(charge(1, 5));
      expect(await running.grow(charge(0, 40))).toBeNull();
      expect(await stateOf(two)).toEqual(three(5, 95));
      await one.redis.send("", ["FLUSHALL"]);
      await expect(async () => two.ledger.reserve({ ...request, upperBound: charge(1, 10) })).rejects.toMatchObject({
        code: "quota_exceeded",
      });
      expect(await stateOf(two)).toEqual(three(5, 95));
      await running.settle(settlement(charge(1, 60)));
      await waiting.commit(charge(1, 3));
      await waiting.settle(settlement(charge(1, 30)));
      expect(await stateOf(one)).toEqual(three(90, 0));
      for (const node of [one, two]) {
        // Other tags may still be mended.
        await eventually(() => node.replica.catchUp());
        expect(node.memory.buckets("alice", limits).map(({ used }) => used)).toEqual([90, 90, 90]);
      }
    } finally {
      await server.close();
    }
  });

  it("is held again where their leases were over while their process stood still", async () => {
    const keyPrefix = newPrefix();
    const { url } = redis.server();
    const one = await openReplicaNode({ url, keyPrefix });
    const hold = await one.ledger.reserve({ ...request, upperBound: charge(1, 40) });
    const tags = new Set([one.redis.tagOf("alice"), one.redis.tagOf("@red")]);
    for (const tag of tags) {
      const key = one.redis.keyIn(tag, "leases");
      for (const member of (await one.redis.send(key, ["ZRANGE", key, "0", "-1"])) as string[])
        await one.redis.send(key, ["ZADD", key, "1", member]);
    }
    await one.ledger.leases.reap();
    expect(await stateOf(one)).toEqual(three(0, 0));
    await one.ledger.leases.renew();
    expect(await stateOf(one)).toEqual(three(0, 40));
    await hold.commit(charge(1, 5));
    await hold.settle(settlement(charge(1, 30)));
    await one.ledger.leases.renew();
    await eventually(async () => {
      expect(await stateOf(one)).toEqual(three(30, 0));
    });
  });
});
