import { cpSync } from "node:fs";
import { expect, it, onTestFinished } from "vitest";
import { replyList, replyText } from "../../src/lib/redis/redis.ts";
import { copyDocuments } from "../../src/replica/copy-state.ts";
import { logKeysOf } from "../../src/replica/log-page.ts";
import { eventually } from "../support/eventually.ts";
import { charge, usedOf } from "../support/ledger.ts";
import {
  openReplicaNode,
  spendOnce,
  totals,
  type ReplicaNode,
  type ReplicaNodeOptions,
} from "../support/replica-node.ts";
import { describeWithRedis, newPrefix, startRedisServer } from "../support/redis-server.ts";
import { tempDir } from "../support/temp-dir.ts";

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
    await redis.send("", ["FLUSHDB"]);
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

  /** Puts Redis back in the state of now, later. */
  async function snapshot({ redis }: ReplicaNode): Promise<() => Promise<void>> {
    const keys = replyList(await redis.send("", ["KEYS", "*"])).map(replyText);
    for (const key of keys) await redis.send("", ["COPY", key, key, "DB", "1"]);
    return async () => {
      await redis.send("", ["SWAPDB", "0", "1"]);
    };
  }

  it("is all that was charged since, where Redis is back in a state from before an earlier loss", async () => {
    const open = await start();
    const [one, two] = [await open(), await open()];
    await spendOnce(one, "alice", "red");
    const back = await snapshot(one);
    await lose(one);
    await spendOnce(one, "alice", "red");
    for (const node of [one, two]) await usedAt(node);
    await back();
    const both = [2, 140, 2, 140];
    for (const node of [one, two]) expect(await usedAt(node)).toEqual([both, both]);
    await spendOnce(two, "alice", "red");
    const all = [3, 210, 3, 210];
    for (const node of [one, two]) {
      expect(await usedAt(node)).toEqual([all, all]);
      expect(node.log.lines.map(({ message }) => message)).not.toContainEqual(
        expect.stringContaining("away for longer"),
      );
    }
  });

  it("is all that was charged since, also where the process was not running then", async () => {
    const open = await start();
    const one = await open();
    await spendOnce(one, "alice", "red");
    const back = await snapshot(one);
    await lose(one);
    await spendOnce(one, "alice", "red");
    // Redis had never heard of him then.
    await spendOnce(one, "bob");
    await usedAt(one);
    await one.close();
    await back();
    const both = [2, 140, 2, 140];
    const again = await open({ folder: one.folder });
    expect(await usedAt(again)).toEqual([both, both]);
    expect(usedOf(again.memory, totals, "bob")).toEqual([1, 70]);
    expect(await again.ledger.buckets("bob", totals)).toMatchObject([{ used: 1 }, { used: 70 }]);
  });

  /** Changes a user's document as identity.lua does, or removes it. */
  async function write({ redis }: ReplicaNode, name: string, text: string | null): Promise<void> {
    const tag = redis.tagOf(name);
    const [key, log, numbers] = [redis.keyIn(tag, "doc", `users/${name}`), ...logKeysOf(redis, tag)];
    await redis.send(key, text === null ? ["DEL", key] : ["HSET", key, "t", text]);
    const seq = replyText(await redis.send(numbers, ["HINCRBY", numbers, "seq", "1"]));
    const body = JSON.stringify({ kind: "users", name, text });
    await redis.send(log, ["XADD", log, "*", "s", seq, "k", "doc", "t", "1", "b", body]);
  }

  it("are also documents that were changed since, and before the start of all that know of it", async () => {
    const open = await start();
    const one = await open();
    for (const name of ["alice", "bob"]) await write(one, name, "first\n");
    await one.replica.catchUp();
    const back = await snapshot(one);
    await write(one, "alice", "second\n");
    await write(one, "bob", null);
    await write(one, "cleo", "first\n");
    await one.replica.catchUp();
    await one.close();
    const again = await open({ folder: one.folder });
    await back();
    await eventually(() => again.replica.catchUp());
    const stored: string[] = [];
    for await (const { kind, name, text } of copyDocuments(again.redis)) stored.push(`${kind}/${name}: ${text.trim()}`);
    expect(stored.sort()).toEqual(["users/alice: second", "users/cleo: first"]);
  });

  /** Records that change nothing, in the log of a name's tag. */
  async function writeIdle({ redis }: ReplicaNode, name: string, count: number): Promise<void> {
    const [log, numbers] = logKeysOf(redis, redis.tagOf(name));
    const from = Number(replyText(await redis.send(numbers, ["HGET", numbers, "seq"])));
    const nothing = charge(0, 0);
    const records = Array.from({ length: count }, async (_, index) => {
      const seq = from + index + 1;
      const body = JSON.stringify({ at: seq, user: name, added: nothing, taken: nothing, reason: `${seq}`, by: "x" });
      await redis.send(log, ["XADD", log, "*", "s", String(seq), "k", "adjust", "t", "1", "b", body]);
    });
    await Promise.all([...records, redis.send(numbers, ["HSET", numbers, "seq", String(from + count)])]);
  }

  it("brings no removed user back, where a process that was filled from Redis remembers the older record alone", async () => {
    const open = await start();
    const one = await open({ node: "b", timeoutMs: 5000 });
    await write(one, "alice", "first\n");
    await one.replica.catchUp();
    const filled = await open({ node: "a", timeoutMs: 5000 });
    await write(one, "alice", null);
    // More than are remembered, so that the oldest of them are forgotten between the losses.
    for (const count of [600, 1950]) {
      await writeIdle(one, "alice", count);
      for (const node of [one, filled]) await eventually(() => node.replica.catchUp(), 20_000);
      await lose(one);
      for (const node of [one, filled]) await eventually(() => node.replica.catchUp(), 20_000);
    }
    const stored: string[] = [];
    for await (const { name } of copyDocuments(one.redis)) stored.push(name);
    expect(stored).toEqual([]);
  });

  it("is not taken for lost again by a process that was killed before it had written where it stands", async () => {
    const open = await start();
    const [one, two] = [await open(), await open()];
    await spendOnce(one, "alice", "red");
    for (const node of [one, two]) await usedAt(node);
    await lose(one);
    for (const node of [one, two]) await usedAt(node);
    const restored = () => [one, two].map(({ log }) => JSON.stringify(log.lines).split("state_restored").length - 1);
    const before = restored();
    await eventually(async () => {
      const folder = tempDir();
      cpSync(two.folder, folder, { recursive: true });
      const again = await open({ folder });
      expect(await usedAt(again)).toEqual([
        [1, 70, 1, 70],
        [1, 70, 1, 70],
      ]);
      await again.close();
    });
    expect(restored()).toEqual(before);
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
