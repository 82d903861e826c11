import { expect, it, onTestFinished } from "vitest";
import { replyText } from "../../src/lib/redis/redis.ts";
import { eventually } from "../support/eventually.ts";
import { usedOf } from "../support/ledger.ts";
import { describeWithRedis, newPrefix, startRedisServer } from "../support/redis-server.ts";
import { openReplicaNode, spendOnce, totals } from "../support/replica-node.ts";

describeWithRedis("a process that starts over a Redis from before a loss", () => {
  it("puts back what was charged since, also for an account that Redis never had then", async () => {
    const { url, close } = await startRedisServer();
    onTestFinished(close);
    const keyPrefix = newPrefix();
    const one = await openReplicaNode({ url, keyPrefix, timeoutMs: 5000 });
    await spendOnce(one, "alice");
    await one.replica.catchUp();
    for (const key of (await one.redis.send("", ["KEYS", "*"])) as string[])
      await one.redis.send("", ["COPY", replyText(key), replyText(key), "DB", "1"]);
    await one.redis.send("", ["FLUSHDB"]);
    await eventually(() => one.replica.catchUp(), 20_000);
    await spendOnce(one, "bob");
    await one.replica.catchUp();
    await one.close();
    await one.redis.send("", ["SWAPDB", "0", "1"]);
    const again = await openReplicaNode({ url, keyPrefix, timeoutMs: 5000, folder: one.folder });
    await eventually(() => again.replica.catchUp(), 20_000);
    expect(usedOf(again.memory, totals, "alice")[0]).toBe(1);
    expect(usedOf(again.memory, totals, "bob")[0]).toBe(1);
  });
});
