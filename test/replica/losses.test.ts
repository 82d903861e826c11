import { expect, it, onTestFinished } from "vitest";
import { eventually } from "../support/eventually.ts";
import { usedOf } from "../support/ledger.ts";
import {
  openReplicaNode,
  spendOnce,
  totals,
  type ReplicaNode,
  type ReplicaNodeOptions,
} from "../support/replica-node.ts";
import { describeWithRedis, newPrefix, startRedisServer } from "../support/redis-server.ts";

const ofGroup = totals.map((limit) => ({ ...limit, group: "red" }));

/** What Redis says, and what the node's folder says, of alice and of the group. */
async function usedAt({ ledger, memory, replica }: ReplicaNode) {
  await eventually(() => replica.catchUp());
  return [
    await usedOf(ledger, [...totals, ...ofGroup]),
    [...usedOf(memory, totals), ...usedOf(memory, totals, "@red")],
  ];
}

describeWithRedis("what is put back into a Redis that has lost everything", () => {
  async function start() {
    const { url, close } = await startRedisServer();
    onTestFinished(close);
    const keyPrefix = newPrefix();
    return (options: Partial<ReplicaNodeOptions> = {}) => openReplicaNode({ url, keyPrefix, ...options });
  }

  async function lose({ redis }: ReplicaNode): Promise<void> {
    await redis.send("", ["FLUSHALL"]);
  }

  it("counts once where the process that puts it back was filled from Redis, and the others know what led to it", async () => {
    const open = await start();
    const one = await open({ node: "b" });
    for (let i = 0; i < 4; i++) await spendOnce(one, "alice", "red");
    let filled = await open({ node: "a" });
    const expected = [4, 280, 4, 280];
    for (let i = 0; i < 3; i++) {
      await lose(one);
      for (const node of [one, filled]) expect(await usedAt(node)).toEqual([expected, expected]);
      await spendOnce(filled, "alice", "red");
      expected.splice(0, 4, 5 + i, 70 * (5 + i), 5 + i, 70 * (5 + i));
      for (const node of [one, filled]) expect(await usedAt(node)).toEqual([expected, expected]);
      await filled.close();
      filled = await open({ node: "a", folder: filled.folder });
    }
  });

  it("is not trimmed before a process that has taken part has read it", async () => {
    const open = await start();
    const slow = await open({ node: "slow", reportMs: 3_600_000 });
    const one = await open();
    await spendOnce(one, "alice", "red");
    await lose(one);
    for (const node of [one, slow]) await eventually(() => node.replica.catchUp());
    const key = slow.redis.keyIn(slow.redis.tagOf("alice"), "readers");
    expect(await slow.redis.send(key, ["HGET", key, "slow"])).toMatch(/^\d+:0-0$/);
  });

  it("is known to a process that has missed an earlier loss: it need not be filled again, and lacks nothing", async () => {
    const open = await start();
    const slow = await open({ pollMs: 3_600_000 });
    const one = await open();
    await spendOnce(one, "alice", "red");
    await slow.replica.catchUp();
    for (let i = 0; i < 3; i++) {
      await lose(one);
      await spendOnce(one, "alice", "red");
      await eventually(() => one.replica.catchUp());
    }
    const all = [4, 280, 4, 280];
    for (const node of [one, slow]) expect(await usedAt(node)).toEqual([all, all]);
    expect(slow.log.lines.map(({ message }) => message)).not.toContainEqual(expect.stringContaining("away for longer"));
    const rows = await slow.replica.usage({ from: "2000-01-01", to: "2100-01-01", user: "alice" });
    expect(rows.map(({ requests }) => requests)).toEqual([4]);
  });
});
