import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it, vi } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import type { JournalPosition } from "../../src/lib/journal/journal-stream.ts";
import { type Redis, RedisUnavailableError } from "../../src/lib/redis/redis.ts";
import type { QuotaLimit } from "../../src/quota/ledger.ts";
import { exportUsage } from "../../src/quota/usage/usage-export.ts";
import { decodeLedgerRecord } from "../../src/quota/memory/charge-record.ts";
import { eventually } from "../support/eventually.ts";
import { charge, openTestLedger, spend, usedOf } from "../support/ledger.ts";
import { openTestRedisLedger } from "../support/redis-ledger.ts";
import { describeWithRedis, newPrefix, useRedis } from "../support/redis-server.ts";
import { copyAccounts } from "../../src/replica/copy-state.ts";
import {
  type Account,
  openReplicaNode,
  type ReplicaNode,
  spendAlways,
  spendOnce,
  totals,
} from "../support/replica-node.ts";
import { tempDir } from "../support/temp-dir.ts";

const days = { from: "2000-01-01", to: "2100-01-01" };

/** Who has charges behind a position of a node's ledger, and where reading them ended. */
async function chargedAfter({ ledger }: ReplicaNode, after?: JournalPosition) {
  const users = new Set<string>();
  let end: JournalPosition | undefined;
  for await (const piece of ledger.recorded(after)) {
    if (piece.kind === "end") end = piece.position;
    else if (piece.kind !== "records") throw new Error(JSON.stringify(piece));
    else
      for (const { payload } of piece.records) {
        const record = decodeLedgerRecord(payload);
        if (record !== undefined) users.add(record.user);
      }
  }
  return { users: [...users].sort(), end };
}

/** What an export of everything says at a node. */
async function exportedBy({ ledger }: ReplicaNode) {
  const problems: string[] = [];
  let rows = 0;
  for await (const item of exportUsage(ledger.recorded(), {})) {
    if (item.kind === "problem") problems.push(item.message);
    else if (item.kind === "row") rows++;
    else return { rows, problems, complete: item.complete };
  }
  throw new Error("an export has an end");
}

const ofGroup = (group: string): QuotaLimit[] => totals.map((limit) => ({ ...limit, group }));

describeWithRedis("the users folder of each process", () => {
  const redis = useRedis();
  const open = (keyPrefix: string, folder?: string) =>
    openReplicaNode({ url: redis.server().url, keyPrefix, ...(folder === undefined ? {} : { folder }) });

  it("seeds an empty Redis, and nothing is sold before", async () => {
    const folder = tempDir();
    const before = await openTestLedger(folder, systemClock);
    await spend(before);
    await spend(before, "bob");
    await before.close();
    writeFileSync(join(folder, "alice.toml"), "the text of a file\n");
    const node = await open(newPrefix(), folder);
    const key = node.redis.keyIn(node.redis.tagOf("alice"), "doc", "users/alice");
    expect(await node.redis.send(key, ["HGET", key, "t"])).toBe("the text of a file\n");
    expect(await usedOf(node.ledger, totals)).toEqual([1, 70]);
    expect(await usedOf(node.ledger, totals, "bob")).toEqual([1, 70]);
    await spendOnce(node, "alice");
    expect(await usedOf(node.ledger, totals)).toEqual([2, 140]);
  });

  it("has what all of them have charged, when it is asked", async () => {
    const prefix = newPrefix();
    const [one, two] = [await open(prefix), await open(prefix)];
    await spendOnce(one, "alice", "red");
    await spendOnce(two, "alice", "red");
    await spendOnce(two, "bob");
    await one.ledger.adjust("bob", { requests: 0, tokens: 5, cost: 0, currency: "CNY" }, { reason: "r", by: "b" });
    for (const node of [one, two]) {
      const rows = await node.replica.usage({ ...days, user: "alice" });
      expect(rows.map((row) => [row.requests, row.tokens, row.unsettled])).toEqual([[2, 140, 0]]);
      expect(usedOf(node.memory, totals, "alice")).toEqual([2, 140]);
      expect(usedOf(node.memory, totals, "bob")).toEqual([1, 75]);
      expect(usedOf(node.memory, ofGroup("red"))).toEqual([2, 140]);
    }
  });

  it("has behind an earlier reading only what any of them has charged since, also after a restart", async () => {
    const prefix = newPrefix();
    const one = await open(prefix);
    let two = await open(prefix);
    await spendOnce(one, "alice");
    await spendOnce(two, "bob");
    const first = await chargedAfter(two);
    expect(first.users).toEqual(["alice", "bob"]);
    expect((await chargedAfter(two, first.end)).users).toEqual([]);
    await spendOnce(one, "cleo", "red");
    const second = await chargedAfter(two, first.end);
    expect(second.users).toEqual(["cleo"]);
    await two.close();
    await spendOnce(one, "dora");
    two = await open(prefix, two.folder);
    expect((await chargedAfter(two, second.end)).users).toEqual(["dora"]);
  });

  it("is filled from Redis where it is empty, and goes on where it stopped where it is not", async () => {
    const prefix = newPrefix();
    const one = await open(prefix);
    let two = await open(prefix);
    await spendOnce(one, "alice", "red");
    await two.replica.catchUp();
    await two.close();
    await spendOnce(one, "alice", "red");
    two = await open(prefix, two.folder);
    expect(usedOf(two.memory, totals)).toEqual([2, 140]);
    expect(usedOf(two.memory, ofGroup("red"))).toEqual([2, 140]);
    expect(two.log.lines.filter(({ facts }) => JSON.stringify(facts).includes("rebuilt"))).toEqual([]);
    const three = await open(prefix);
    expect(usedOf(three.memory, totals)).toEqual([2, 140]);
    await spendOnce(two, "alice", "red");
    await three.replica.catchUp();
    expect(usedOf(three.memory, totals)).toEqual([3, 210]);
    expect(usedOf(three.memory, ofGroup("red"))).toEqual([3, 210]);
    await three.close();
    const again = await openTestLedger(three.folder, systemClock);
    expect(usedOf(again, totals)).toEqual([3, 210]);
    await again.close();
  });

  it("gets the log trimmed to what all have on disk, and is rebuilt where it was away for too long", async () => {
    const prefix = newPrefix();
    const one = await openReplicaNode({ url: redis.server().url, keyPrefix: prefix, keepForMs: 300 });
    let two = await openReplicaNode({ url: redis.server().url, keyPrefix: prefix, keepForMs: 300 });
    await spendOnce(one, "alice");
    await two.replica.catchUp();
    await two.close();
    for (let i = 0; i < 5; i++) await spendOnce(one, "alice");
    const key = one.redis.keyIn(one.redis.tagOf("alice"), "log");
    await eventually(async () => {
      await one.replica.catchUp();
      expect(await one.redis.send(key, ["XLEN", key])).toBe(1);
    });
    two = await open(prefix, two.folder);
    expect(usedOf(two.memory, totals)).toEqual([6, 420]);
    await spendOnce(one, "alice");
    await two.replica.catchUp();
    expect(usedOf(two.memory, totals)).toEqual([7, 490]);
  });

  it("says of which time it has no records: that before it was filled, and in which it was away for too long", async () => {
    const keyPrefix = newPrefix();
    const start = (folder?: string) =>
      openReplicaNode({
        url: redis.server().url,
        keyPrefix,
        keepForMs: 300,
        ...(folder === undefined ? {} : { folder }),
      });
    const one = await start();
    await spendOnce(one, "alice");
    const before = Date.now();
    let two = await start();
    const filledAt = await two.ledger.missingBefore();
    expect(filledAt).toBeGreaterThanOrEqual(before);
    expect(await one.ledger.missingBefore()).toBe(null);
    const empty = await exportedBy(two);
    expect(empty.problems).toEqual([expect.stringContaining("filled from Redis")]);
    await spendOnce(one, "alice");
    expect(await exportedBy(one)).toMatchObject({ rows: 2, problems: [], complete: true });
    // More than once: what an earlier reading has said is not said differently by the next one.
    for (let i = 0; i < 2; i++) {
      const filled = await exportedBy(two);
      expect(filled).toMatchObject({ rows: 1, complete: false });
      expect(filled.problems).toEqual([expect.stringContaining("filled from Redis")]);
    }
    await two.close();
    for (let i = 0; i < 3; i++) await spendOnce(one, "alice");
    const key = one.redis.keyIn(one.redis.tagOf("alice"), "log");
    await eventually(async () => {
      await one.replica.catchUp();
      expect(await one.redis.send(key, ["XLEN", key])).toBe(1);
    });
    two = await start(two.folder);
    await spendOnce(one, "alice");
    const again = await exportedBy(two);
    expect(again).toMatchObject({ rows: 2, complete: false });
    expect(again.problems).toEqual([
      expect.stringContaining("filled from Redis"),
      expect.stringContaining("away for longer"),
    ]);
    expect(await two.ledger.missingBefore()).toBeGreaterThan(filledAt ?? Infinity);
    const all = await exportedBy(one);
    expect(all).toMatchObject({ rows: 6, problems: [], complete: true });
  });

  it("is filled with both parts of a group's charges, also of those that are made meanwhile", async () => {
    const keyPrefix = newPrefix();
    // The group's part arrives late, as where a network is slow.
    const slow = (own: Redis): Redis => ({
      ...own,
      async call(name, keys, args, options) {
        if (keys[0].includes(":acct:@")) await new Promise((resolve) => setTimeout(resolve, 30));
        return own.call(name, keys, args, options);
      },
    });
    const one = await openReplicaNode({ url: redis.server().url, keyPrefix, wrap: slow });
    const seen = new Map<string, Account>();
    const users = ["alice", "bob", "carol", "dora", "eve", "finn", "gus", "hal"];
    const stop = spendAlways(one, users, seen, "red");
    const settled = (): number => [...seen.values()].reduce((sum, { settled: count }) => sum + count, 0);
    await eventually(() => {
      expect(settled()).toBeGreaterThan(20);
    });
    const two = await openReplicaNode({ url: redis.server().url, keyPrefix });
    await stop();
    const used = [settled(), 70 * settled()];
    // Final charges that met the copy are repeated until they are made.
    await eventually(async () => {
      expect(await usedOf(two.ledger, ofGroup("red"))).toEqual(used);
    });
    await Promise.all([one.replica.catchUp(), two.replica.catchUp()]);
    for (const { memory } of [one, two]) expect(usedOf(memory, totals, "@red")).toEqual(used);
  });

  it("is filled with the group's part of a charge whose process died before it", async () => {
    const keyPrefix = newPrefix();
    const url = redis.server().url;
    let isDead = false;
    const dying = (own: Redis): Redis => ({
      ...own,
      call: (name, keys, args, options) =>
        isDead && (name === "ledger_extend" || keys[0].includes(":acct:@"))
          ? Promise.reject(new RedisUnavailableError("this process is gone"))
          : own.call(name, keys, args, options),
    });
    const one = await openReplicaNode({ url, keyPrefix, wrap: dying, leaseSeconds: 2 });
    const living = await openReplicaNode({ url, keyPrefix, leaseSeconds: 2 });
    const request = { user: "alice", group: "red", limits: totals, requestId: "r", model: "m" };
    const hold = await one.ledger.reserve({ ...request, upperBound: charge(1, 100) });
    isDead = true;
    await hold.commit(charge(1, 10));
    await eventually(async () => {
      expect(await usedOf(living.ledger, totals)).toEqual([1, 10]);
    });
    const two = await openReplicaNode({ url, keyPrefix });
    await Promise.all([living.replica.catchUp(), two.replica.catchUp()]);
    for (const { memory } of [living, two]) expect(usedOf(memory, totals, "@red")).toEqual([1, 10]);
    expect(await usedOf(living.ledger, ofGroup("red"))).toEqual([1, 10]);
  });

  it("is filled with an account that is new while the others are looked for", async () => {
    const one = await open(newPrefix());
    await spendOnce(one, "alice");
    let isFound = false;
    const late: Redis = {
      ...one.redis,
      async send(key, args) {
        const reply = await one.redis.send(key, args);
        if (args[0] === "SCAN" && key === one.redis.keyIn(one.redis.tags.at(-1) ?? "", "") && !isFound) {
          isFound = true;
          await spendOnce(one, "bob", "red");
        }
        return reply;
      },
    };
    const { accounts } = await copyAccounts(late);
    expect([...accounts.keys()].sort()).toEqual(["@red", "alice", "bob"]);
    expect(accounts.get("@red")?.windows).toContainEqual(expect.objectContaining({ per: "total" }));
  });

  it("goes on where it stopped after a crash in its first moments", async () => {
    const prefix = newPrefix();
    const first = await open(prefix);
    await spendOnce(first, "alice");
    await first.replica.catchUp();
    // What a crash leaves: nothing is written at the end.
    const crashed = tempDir();
    cpSync(first.folder, crashed, { recursive: true });
    await first.close();
    const other = await open(prefix);
    rmSync(join(crashed, ".lock"), { recursive: true, force: true });
    await spendOnce(other, "bob", "red");
    const again = await open(prefix, crashed);
    await again.replica.catchUp();
    expect(again.log.lines.filter(({ facts }) => JSON.stringify(facts).includes("rebuilt"))).toEqual([]);
    for (const [user, used] of Object.entries({ alice: [1, 70], bob: [1, 70], "@red": [1, 70] }))
      expect(usedOf(again.memory, totals, user), user).toEqual(used);
  });

  it("has the documents as files", async () => {
    const prefix = newPrefix();
    const [one, two] = [await open(prefix), await open(prefix)];
    const tag = one.redis.tagOf("alice");
    const put = async (text: string | null): Promise<void> => {
      const key = one.redis.keyIn(tag, "log");
      const body = JSON.stringify({ kind: "users", name: "alice", text });
      const seq = one.redis.keyIn(tag, "logseq");
      const number = await one.redis.send(seq, ["HINCRBY", seq, "seq", "1"]);
      await one.redis.send(key, ["XADD", key, "*", "s", String(number), "k", "doc", "t", "1", "b", body]);
    };
    await put("first\n");
    await put("second\n");
    await two.replica.catchUp();
    expect(readFileSync(join(two.folder, "alice.toml"), "utf8")).toBe("second\n");
    await put(null);
    await two.replica.catchUp();
    expect(() => readFileSync(join(two.folder, "alice.toml"))).toThrow(/ENOENT/);
  });

  it("makes a change by hand once whose answer was lost together with all that Redis had", async () => {
    const prefix = newPrefix();
    const [one, two] = [await open(prefix), await open(prefix)];
    let isLost = false;
    const redis: Redis = {
      ...one.redis,
      async call(...given) {
        const reply = await one.redis.call(...given);
        if (isLost || given[0] !== "ledger_change") return reply;
        isLost = true;
        await two.replica.catchUp();
        await one.redis.send("", ["FLUSHALL"]);
        return one.redis.call(...given);
      },
    };
    const ledger = await openTestRedisLedger(redis, systemClock, { replica: one.replica });
    await ledger.adjust("bob", { requests: 0, tokens: 5, cost: 0, currency: "CNY" }, { reason: "r", by: "b" });
    expect(isLost).toBe(true);
    expect(await usedOf(ledger, totals, "bob")).toEqual([0, 5]);
    for (const node of [one, two]) {
      await vi.waitFor(() => node.replica.catchUp(), { timeout: 10_000 });
      expect(usedOf(node.memory, totals, "bob")).toEqual([0, 5]);
    }
  });

  it("gives back what FLUSHALL took, in the middle of the work, and no charge is lost or doubled", async () => {
    const prefix = newPrefix();
    const [one, two] = [await open(prefix), await open(prefix)];
    const seen = new Map<string, Account>();
    const stops = [spendAlways(one, ["alice", "bob"], seen, "red"), spendAlways(two, ["carol", "dave"], seen)];
    const settled = (): number => [...seen.values()].reduce((sum, account) => sum + account.settled, 0);
    await eventually(() => {
      expect(settled()).toBeGreaterThan(50);
    });
    const before = settled();
    await one.redis.send(one.redis.keyIn("00", "x"), ["FLUSHALL"]);
    await eventually(() => {
      expect(settled()).toBeGreaterThan(before + 50);
    }, 20_000);
    for (const stop of stops) await stop();
    await expectExact([one, two], seen);
    const sums = ["alice", "bob"].map((user) => seen.get(user)?.settled ?? 0);
    const requests = sums.reduce((a, b) => a + b);
    expect(await usedOf(one.ledger, ofGroup("red"))).toEqual([requests, 70 * requests]);
    expect(usedOf(two.memory, ofGroup("red"))).toEqual([requests, 70 * requests]);
  });
});

/** Each user's charges are in Redis and in every replica, once. */
async function expectExact(nodes: readonly ReplicaNode[], seen: ReadonlyMap<string, Account>): Promise<void> {
  for (const node of nodes) {
    // Refused until this process has also put back what it has.
    await vi.waitFor(() => node.replica.catchUp(), { timeout: 10_000 });
    for (const [user, { settled }] of seen) {
      const expected = [settled, 70 * settled];
      expect([user, await usedOf(node.ledger, totals, user)]).toEqual([user, expected]);
      expect([user, usedOf(node.memory, totals, user)]).toEqual([user, expected]);
    }
  }
}
