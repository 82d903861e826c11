import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it, vi } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import { eventually } from "../support/eventually.ts";
import { openTestLedger, spend, usedOf } from "../support/ledger.ts";
import { describeWithRedis, newPrefix, useRedis } from "../support/redis-server.ts";
import { openReplicaNode, type ReplicaNode, spendOnce, totals } from "../support/replica-node.ts";
import { tempDir } from "../support/temp-dir.ts";

describeWithRedis("a users folder with a state of its own", () => {
  const redis = useRedis();
  const open = (keyPrefix: string, folder?: string) =>
    openReplicaNode({ url: redis.server().url, keyPrefix, ...(folder === undefined ? {} : { folder }) });
  /** Gives Redis the logs of other processes, in the place of a process's own: at once, or it would see a loss. */
  async function replaceLogs({ redis: own }: ReplicaNode): Promise<void> {
    const keys = own.tags.flatMap((tag) => [own.keyIn(tag, "log"), own.keyIn(tag, "logseq")]);
    const script = `redis.call("DEL", unpack(KEYS))
      for i = 2, #KEYS, 2 do redis.call("HSET", KEYS[i], "epoch", "other", "before", "", "seq", "0") end`;
    await own.send(keys[0] ?? "", ["EVAL", script, String(keys.length), ...keys]);
  }

  it("is left alone where Redis has another one", async () => {
    const text = (name: string): string => `the text of ${name}\n`;
    const folderWith = async (...names: readonly string[]): Promise<string> => {
      const folder = tempDir();
      const ledger = await openTestLedger(folder, systemClock);
      for (const name of names) {
        writeFileSync(join(folder, `${name}.toml`), text(name));
        await spend(ledger, name);
      }
      await ledger.close();
      return folder;
    };
    const prefix = newPrefix();
    const folder = await folderWith("alice", "bob");
    await open(prefix, await folderWith("cleo"));
    for (let i = 0; i < 2; i++)
      await expect(open(prefix, folder)).rejects.toThrow(/without users\/alice, users\/bob, what alice has used/);
    for (const name of ["alice", "bob"]) expect(readFileSync(join(folder, `${name}.toml`), "utf8")).toBe(text(name));
    // Nor is it where the one in Redis comes from a process that had nothing, or has come after this folder's own.
    const empty = newPrefix();
    await open(empty);
    await expect(open(empty, folder)).rejects.toThrow("state of its own");
    const copy = await open(newPrefix(), folder);
    await copy.close();
    await expect(open(prefix, folder)).rejects.toThrow("state of its own");
    expect(readFileSync(join(folder, "bob.toml"), "utf8")).toBe(text("bob"));
  });

  it("is the one that fills Redis where another process that starts at the same moment has none", async () => {
    for (let i = 0; i < 4; i++) {
      const prefix = newPrefix();
      const folder = tempDir();
      writeFileSync(join(folder, "alice.toml"), "the text of a file\n");
      const [one, other] = await Promise.all([open(prefix), open(prefix, folder)]);
      const key = one.redis.keyIn(one.redis.tagOf("alice"), "doc", "users/alice");
      expect(await one.redis.send(key, ["HGET", key, "t"])).toBe("the text of a file\n");
      await one.replica.catchUp();
      expect(readFileSync(join(other.folder, "alice.toml"), "utf8")).toBe("the text of a file\n");
    }
  });

  it("is left alone, and serves nothing, where Redis gets another one while the process lives", async () => {
    const folder = tempDir();
    writeFileSync(join(folder, "alice.toml"), "the text of a file\n");
    const node = await open(newPrefix(), folder);
    expect(await node.ledger.health()).toEqual({ ok: true });
    const key = node.redis.keyIn(node.redis.tagOf("alice"), "doc", "users/alice");
    await node.redis.send(key, ["DEL", key]);
    await replaceLogs(node);
    await eventually(async () => {
      expect(await node.ledger.health()).toMatchObject({
        ok: false,
        reason: expect.stringContaining("of its own") as string,
      });
    });
    await expect(node.replica.catchUp()).rejects.toThrow("without users/alice");
    expect(readFileSync(join(folder, "alice.toml"), "utf8")).toBe("the text of a file\n");
    expect(node.log.lines.map(({ level }) => level)).toContain("error");
  });

  it("gets what Redis had acknowledged last, where the log is gone before this process has read it", async () => {
    const folder = tempDir();
    writeFileSync(join(folder, "alice.toml"), "the text of a file\n");
    const prefix = newPrefix();
    const node = await openReplicaNode({ url: redis.server().url, keyPrefix: prefix, folder, pollMs: 3_600_000 });
    await spendOnce(node, "alice");
    await node.replica.catchUp();
    await spendOnce(node, "alice");
    await spendOnce(node, "bob");
    expect(usedOf(node.memory, totals)).toEqual([1, 70]);
    const key = node.redis.keyIn(node.redis.tagOf("alice"), "doc", "users/alice");
    await node.redis.send(key, ["DEL", key]);
    await replaceLogs(node);
    vi.spyOn(node.memory.follower, "apply").mockImplementationOnce(() => {
      throw new Error("the disk is full");
    });
    const lookAgain = () => expect(node.replica.catchUp()).rejects.toThrow("without users/alice");
    await lookAgain();
    expect(node.log.lines.map(({ message }) => message)).toContainEqual(expect.stringContaining("cannot be written"));
    for (let i = 0; i < 2; i++) await lookAgain();
    expect(usedOf(node.memory, totals)).toEqual([2, 140]);
    await node.close();
    // Another prefix: the folder fills it.
    const again = await open(newPrefix(), folder);
    expect(await usedOf(again.ledger, totals)).toEqual([2, 140]);
    expect(await usedOf(again.ledger, totals, "bob")).toEqual([1, 70]);
  });
});
