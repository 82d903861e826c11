import { cpSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { AppError } from "../../../src/errors.ts";
import { RedisUnavailableError } from "../../../src/lib/redis/redis.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import type { Hold, QuotaLimit } from "../../../src/quota/ledger.ts";
import { eventually } from "../../support/eventually.ts";
import { type FaultProxy, startFaultProxy } from "../../support/fault-proxy.ts";
import { ask, charge, monthly, settlement, usedOf } from "../../support/ledger.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { createTimedLibrary, openTestRedisLedger, seedTags, withClock } from "../../support/redis-ledger.ts";
import { describeWithRedis, newPrefix, startRedisServer, useRedis } from "../../support/redis-server.ts";
import { openReplicaNode, type ReplicaNode } from "../../support/replica-node.ts";
import { tempDir } from "../../support/temp-dir.ts";

const tokens = (max: number): QuotaLimit => ({ metric: "tokens", per: "total", max });
const limits = [monthly(100), tokens(10_000)];
const allowance = { share: 0.2, allowanceMs: 60_000 };
let requests = 0;

/** One request of a token each, up to 100; undefined if it is refused for want of room. */
async function start(node: Pick<ReplicaNode, "ledger">, changes: Parameters<typeof ask>[0] = {}): Promise<Hold> {
  return node.ledger.reserve(ask({ limits, requestId: `r${++requests}`, upperBound: charge(1, 100), ...changes }));
}

/** A whole request. False if it is refused for want of room, of whichever kind. */
async function spend(node: Pick<ReplicaNode, "ledger">, changes: Parameters<typeof ask>[0] = {}): Promise<boolean> {
  try {
    const hold = await start(node, changes);
    await hold.commit(charge(1, 10), { provider: "p", price: "x" });
    await hold.settle(settlement(charge(1, 70)));
    return true;
  } catch (error) {
    if (error instanceof RedisUnavailableError || (error instanceof AppError && error.code === "quota_exceeded"))
      return false;
    throw error;
  }
}

async function spendAll(node: Pick<ReplicaNode, "ledger">, changes: Parameters<typeof ask>[0] = {}): Promise<number> {
  for (let count = 0; ; count++) if (!(await spend(node, changes))) return count;
}

const statsOf = ({ ledger }: Pick<ReplicaNode, "ledger">) => ledger.allowance?.stats();

async function isAway({ redis }: Pick<ReplicaNode, "redis">): Promise<void> {
  await eventually(() => {
    expect(redis.awayMs()).toBeGreaterThan(0);
  });
}

/** Everything is in Redis and nothing is held; then all copies have the same. */
async function expectUsed(nodes: readonly ReplicaNode[], used: readonly number[], user = "alice"): Promise<void> {
  await eventually(async () => {
    for (const node of nodes) {
      expect(statsOf(node)?.unreported ?? 0).toBe(0);
      await node.ledger.allowance?.report();
      await node.replica.catchUp();
      expect(await usedOf(node.ledger, limits, user)).toEqual(used);
      expect(usedOf(node.memory, limits, user)).toEqual(used);
    }
  }, 20_000);
}

describeWithRedis("while Redis is away", () => {
  it("a process serves what it holds in advance, not one unit more, and reports it", async () => {
    const server = await startRedisServer(["--appendonly", "yes"]);
    onTestFinished(() => server.close());
    const node = await openReplicaNode({ url: server.url, keyPrefix: newPrefix(), timeoutMs: 300, allowance });
    expect(await spend(node)).toBe(true);
    await eventually(() => {
      expect(statsOf(node)).toEqual({ served: 0, unreported: 0, held: 1 });
    });
    // What is held is nobody else's.
    expect(await node.ledger.buckets("alice", limits)).toMatchObject([{ used: 1, reserved: 20 }, { reserved: 2000 }]);
    server.pause();
    await isAway(node);
    expect(await spend(node, { user: "bob" })).toBe(false);
    expect(await spendAll(node)).toBe(20);
    expect(statsOf(node)).toMatchObject({ served: 20, unreported: 20 });
    server.resume();
    await expectUsed([node], [21, 1470]);
    expect(await node.ledger.buckets("alice", limits)).toMatchObject([{ reserved: 0 }, { reserved: 0 }]);
    expect(await spend(node)).toBe(true);
  });

  it("several processes together sell no more than there is", async () => {
    const server = await startRedisServer(["--appendonly", "yes"]);
    onTestFinished(() => server.close());
    const keyPrefix = newPrefix();
    const networks: FaultProxy[] = [];
    const cut: ReplicaNode[] = [];
    for (let i = 0; i < 2; i++) {
      const network = await startFaultProxy(server.url);
      onTestFinished(() => network.close());
      networks.push(network);
      cut.push(await openReplicaNode({ url: network.url, keyPrefix, timeoutMs: 300, allowance }));
    }
    const other = await openReplicaNode({ url: server.url, keyPrefix, timeoutMs: 1000, allowance });
    for (const node of cut) {
      expect(await spend(node, { group: "red", limits: [...limits, { ...monthly(70), group: "red" }] })).toBe(true);
      await eventually(() => {
        expect(statsOf(node)?.held).toBe(1);
      });
    }
    for (const network of networks) {
      network.up.blackhole = network.down.blackhole = true;
      network.resetAll();
    }
    await Promise.all(cut.map(isAway));
    const red = { group: "red", limits: [...limits, { ...monthly(70), group: "red" }] };
    const sold = await Promise.all([...cut, other].map((node) => spendAll(node, red)));
    // A fifth of the group's 70, a quarter of the 54 that are left then, and the rest.
    expect(sold).toEqual([14, 13, 41]);
    for (const network of networks) network.up.blackhole = network.down.blackhole = false;
    await expectUsed([...cut, other], [70, 4900]);
    const ofGroup = [{ ...monthly(70), group: "red" }];
    expect(await other.ledger.buckets("alice", ofGroup)).toMatchObject([{ used: 70, reserved: 0 }]);
    expect(usedOf(other.memory, [monthly(70)], "@red")).toEqual([70]);
  });

  it("charges outlive the process, and one that is reported twice counts once", async () => {
    const server = await startRedisServer(["--appendonly", "yes"]);
    onTestFinished(() => server.close());
    const keyPrefix = newPrefix();
    const folder = tempDir();
    const first = await openReplicaNode({ url: server.url, keyPrefix, folder, timeoutMs: 300, allowance });
    const red = { group: "red", limits: [...limits, { ...monthly(70), group: "red" }] };
    expect(await spend(first, red)).toBe(true);
    await eventually(() => {
      expect(statsOf(first)?.held).toBe(1);
    });
    server.pause();
    await isAway(first);
    for (let i = 0; i < 5; i++) expect(await spend(first, red)).toBe(true);
    const running = await start(first, red);
    await running.commit(charge(1, 10), { provider: "p", price: "x" });
    // As if it had been killed: Redis hears nothing of it.
    await first.close();
    expect(readdirSync(join(folder, ".away"))).not.toEqual([]);
    const saved = tempDir();
    cpSync(join(folder, ".away"), saved, { recursive: true });
    server.resume();
    const second = await openReplicaNode({ url: server.url, keyPrefix, folder, allowance });
    await expectUsed([second], [7, 430]);
    await second.close();
    // As if it had died before it could note that they were reported.
    cpSync(saved, join(folder, ".away"), { recursive: true, force: true });
    const third = await openReplicaNode({ url: server.url, keyPrefix, folder, allowance });
    await expectUsed([third], [7, 430]);
    expect(await third.ledger.buckets("alice", [{ ...monthly(70), group: "red" }])).toMatchObject([{ used: 7 }]);
  });
});

describeWithRedis("what a process holds in advance", () => {
  const { open } = useRedis();
  const startsAt = Date.parse("2026-11-22T04:00:00Z");

  it("is spent only while Redis keeps it, also where its clock is slow", async () => {
    const time = createManualClock(startsAt);
    // Nine parts in a hundred slower than Redis's.
    const slow: Clock = { now: () => time.now(), monotonic: () => (time.monotonic() - startsAt) * 0.91 };
    const keyPrefix = newPrefix();
    const library = createTimedLibrary();
    const connection = await open({ keyPrefix, library });
    await seedTags(connection);
    const state = { away: 0 };
    const redis = { ...withClock(connection, time), awayMs: () => state.away };
    const away = { share: 0.2, allowanceMs: 60_000, folder: tempDir(), syncIntervalMs: 5 };
    const lease = { lease_seconds: 5, min_replicas: 0 };
    const ledger = await openTestRedisLedger(redis, slow, { allowance: away, state: lease });
    const other = await openTestRedisLedger(withClock(connection, time), time, { state: lease });
    expect(await spend({ ledger })).toBe(true);
    await eventually(() => {
      expect(ledger.allowance?.stats().held).toBe(1);
    });
    state.away = 1;
    let lastSpent = 0;
    let freeAt = 0;
    for (let ms = 0; freeAt === 0; ms += 1000) {
      await other.leases.reap();
      const [bucket] = await other.buckets("alice", limits);
      if (bucket?.reserved === 0) freeAt = ms;
      const hold = await start({ ledger }).catch(() => undefined);
      if (hold !== undefined) lastSpent = ms;
      await hold?.settle(settlement(charge(0)));
      time.advance(1000);
    }
    expect(lastSpent).toBeGreaterThanOrEqual(60_000);
    expect(freeAt).toBeGreaterThan(lastSpent);
  });

  it("is the most that is oversold where a process reports too late: its charges count all the same", async () => {
    const time = createManualClock(startsAt);
    const keyPrefix = newPrefix();
    const connection = await open({ keyPrefix, library: createTimedLibrary() });
    await seedTags(connection);
    const state = { away: 0 };
    const redis = { ...withClock(connection, time), awayMs: () => state.away };
    const away = { share: 0.2, allowanceMs: 60_000, folder: tempDir(), syncIntervalMs: 5 };
    const ledger = await openTestRedisLedger(redis, time, { allowance: away });
    const other = await openTestRedisLedger(withClock(connection, time), time);
    expect(await spend({ ledger })).toBe(true);
    await eventually(() => {
      expect(ledger.allowance?.stats().held).toBe(1);
    });
    state.away = 1;
    expect(await spendAll({ ledger })).toBe(20);
    expect(await spendAll({ ledger: other })).toBe(100 - 1 - 20);
    for (let ms = 0; ms < 120_000; ms += 10_000) {
      time.advance(10_000);
      await other.leases.reap();
    }
    // The slice has come back, as that of a process that is gone.
    expect(await spendAll({ ledger: other })).toBe(20);
    state.away = 0;
    await ledger.allowance?.report();
    expect(await usedOf(other, [monthly(100)])).toEqual([120]);
  });

  it("is of a group's limit no more than one process may have, however many of its members it serves", async () => {
    const time = createManualClock(startsAt);
    const redis = withClock(await open({ library: createTimedLibrary() }), time);
    await seedTags(redis);
    const away = { share: 0.2, allowanceMs: 600_000, folder: tempDir(), syncIntervalMs: 5 };
    const ledger = await openTestRedisLedger(redis, time, { allowance: away });
    const ofGroup = { ...monthly(200), group: "red" };
    const reserved = async (): Promise<number | undefined> => (await ledger.buckets("alice", [ofGroup]))[0]?.reserved;
    const members = ["alice", "bob", "carol", "dave", "erin"];
    for (const [index, user] of members.entries()) {
      for (let beat = 0; beat < 2; beat++) {
        expect(await spend({ ledger }, { user, group: "red", limits: [...limits, ofGroup] })).toBe(true);
        await ledger.allowance?.report();
        time.advance(10_000);
      }
      await eventually(() => {
        expect(ledger.allowance?.stats().held).toBe(index + 1);
      });
      // A fifth of 200, whose parts are halved where there are more members than parts.
      expect(await reserved()).toBe([20, 40, 30, 40, 25][index]);
    }
  });

  it("is given back where the user needs it, and where the user is gone", async () => {
    const time = createManualClock(startsAt);
    const redis = withClock(await open({ library: createTimedLibrary() }), time);
    await seedTags(redis);
    const away = { share: 0.25, allowanceMs: 60_000, folder: tempDir(), syncIntervalMs: 5 };
    const ledger = await openTestRedisLedger(redis, time, { allowance: away });
    expect(await spendAll({ ledger }, { limits: [monthly(40)] })).toBe(40);
    expect(await spend({ ledger }, { user: "bob" })).toBe(true);
    await eventually(() => {
      expect(ledger.allowance?.stats().held).toBe(1);
    });
    time.advance(61_000);
    await ledger.allowance?.report();
    expect(ledger.allowance?.stats().held).toBe(0);
    expect(await ledger.buckets("bob", limits)).toMatchObject([{ reserved: 0 }, { reserved: 0 }]);
  });
});
