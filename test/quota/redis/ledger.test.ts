import { expect, it } from "vitest";
import type { Clock } from "../../../src/lib/clock.ts";
import type { Redis } from "../../../src/lib/redis/redis.ts";
import type { Charge, QuotaLimit } from "../../../src/quota/ledger.ts";
import type { LedgerReplica } from "../../../src/quota/redis/ledger-replica.ts";
import type { RedisLedgerOptions } from "../../../src/quota/redis/redis-ledger.ts";
import { attempt, refusalOf } from "../../support/attempt.ts";
import { eventually } from "../../support/eventually.ts";
import { startFaultProxy } from "../../support/fault-proxy.ts";
import { ask, charge, monthly, settlement, usedOf } from "../../support/ledger.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import {
  createTestReplica,
  createTimedLibrary,
  openTestRedisLedger,
  seedTags,
  withClock,
} from "../../support/redis-ledger.ts";
import { describeWithRedis, newPrefix, useRedis } from "../../support/redis-server.ts";

const startsAt = Date.parse("2026-11-22T04:00:00Z");
const most = Number.MAX_SAFE_INTEGER;
const leaseMs = 30_000;
const tokens: QuotaLimit = { metric: "tokens", per: "day", max: 1000 };
const shared: QuotaLimit = { ...monthly(2), group: "red" };

describeWithRedis("the ledger over Redis", () => {
  const { open, server } = useRedis();
  const library = createTimedLibrary();

  /** Nodes over one empty state, at the time of one clock. */
  async function start(
    options: Partial<RedisLedgerOptions> = {},
    { wrap = (redis: Redis) => redis, timeoutMs = 2000 } = {},
  ) {
    const clock = createManualClock(startsAt);
    const connection = await open({ library, timeoutMs });
    const redis = withClock(wrap(connection), clock);
    await seedTags(redis);
    const node = () => openTestRedisLedger(redis, clock, options);
    return { clock, redis, connection, node, ledger: await node() };
  }

  /** As a node that dies: none of its later calls arrives, not even those that renew its leases. */
  function mortal(redis: Redis): Redis & { die(): void; dieAfter(name: string): void } {
    let isDead = false;
    let last = "";
    const away = () => Promise.reject(new Error("the node has died"));
    return {
      ...redis,
      async call(name, ...given) {
        if (isDead) return away();
        const reply = await redis.call(name, ...given);
        if (name === last) isDead = true;
        return reply;
      },
      send: (...given) => (isDead ? away() : redis.send(...given)),
      die: () => void (isDead = true),
      dieAfter: (name) => void (last = name),
    };
  }

  it("is exact to the last nano-unit at the largest amounts", async () => {
    const { ledger } = await start();
    const limits: QuotaLimit[] = [{ metric: "cost", per: "total", max: most, currency: "CNY" }];
    const hold = await ledger.reserve(ask({ limits, upperBound: charge(1, 0, most - 2) }));
    await hold.commit(charge(1, 0, 9_007_199_254_740_987));
    expect(await hold.settle(settlement(charge(1, 0, 9_007_199_254_740_988)))).toMatchObject([
      { used: 9_007_199_254_740_988, reserved: 0, remaining: 3 },
    ]);
    const refusal = await refusalOf(() => ledger.reserve(ask({ limits, upperBound: charge(1, 0, 4) })));
    expect(refusal.extras.details).toMatchObject({ used: "9007199.254740988", requested: "0.000000004" });
    await ledger.reserve(ask({ limits, upperBound: charge(1, 0, 3) }));
    // Beyond the largest amount a sum stays there, as in memory.
    await ledger.adjust("alice", { requests: 0, tokens: 0, cost: most, currency: "CNY" }, { reason: "x", by: "y" });
    expect(await usedOf(ledger, limits)).toEqual([most]);
  });

  it("takes what is no amount for an error, and has written nothing then", async () => {
    const { redis, ledger } = await start();
    const tag = redis.tagOf("alice");
    const keys = ["acct", "acct", "hold", "leases", "log", "logseq"].map((kind) => redis.keyIn(tag, kind, "")) as [
      string,
    ];
    const logseq = redis.keyIn(tag, "logseq");
    for (const cost of ["1e3", "-1", "1.5", " 1", "9007199254740992", ""]) {
      const args = [0, "", "", "", "", `requests=1 tokens=0 cost:CNY=${cost}`, 1000, "m", ""];
      keys.splice(5, 1, logseq);
      await expect(redis.call("ledger_reserve", keys, args)).rejects.toThrow("not an amount");
    }
    expect(await ledger.buckets("alice", [monthly(1)])).toMatchObject([{ reserved: 0 }]);
  });

  it("asks Redis once to admit and once to settle", async () => {
    const { clock, connection, redis } = await start();
    // The time is set once: to set it is a call as well.
    await redis.call("now", [redis.keyIn("00", "logseq")], []);
    const ledger = await openTestRedisLedger(connection, clock);
    await (await ledger.reserve(ask())).settle(settlement(charge(0)));
    const calls = async (): Promise<number> => {
      const info = String(await connection.send("", ["INFO", "commandstats"]));
      return Number(/cmdstat_fcall:calls=(\d+)/.exec(info)?.[1]);
    };
    const counted = async (work: () => Promise<unknown>) => {
      const before = await calls();
      await work();
      return (await calls()) - before;
    };
    const holds = [await ledger.reserve(ask())];
    expect(await counted(async () => holds.push(await ledger.reserve(ask())))).toBe(1);
    const [hold] = holds;
    expect(await counted(async () => hold?.commit(charge(1)))).toBe(1);
    expect(await counted(async () => hold?.settle(settlement(charge(1))))).toBe(1);
    // A short answer: its first charge and its last are one call.
    const short = holds[1];
    const both = async (): Promise<void> => {
      void short?.commit(charge(1));
      await short?.settle(settlement(charge(1, 7)));
    };
    expect(await counted(both)).toBe(1);
    expect(await ledger.buckets("alice", [monthly(9), tokens])).toMatchObject([{ used: 2 }, { used: 7, reserved: 0 }]);
  });

  it("makes both charges of a group's request in one call each where it ends at once", async () => {
    const { ledger, node } = await start();
    const limits = [monthly(9), { ...shared, max: 9 }];
    const hold = await ledger.reserve(ask({ limits, group: "red", upperBound: charge(4) }));
    void hold.commit(charge(1));
    expect(await hold.settle(settlement(charge(3)))).toMatchObject([
      { used: 3, reserved: 0 },
      { used: 3, reserved: 0 },
    ]);
    expect(await (await node()).buckets("alice", limits)).toMatchObject([
      { used: 3, reserved: 0 },
      { used: 3, reserved: 0 },
    ]);
  });

  it("begins a period where Redis's clock says so, whatever the node's clock says", async () => {
    const { clock, redis } = await start();
    // An hour behind: it is not yet midnight here.
    const behind: Clock = { now: () => clock.now() - 3_600_000, monotonic: () => clock.monotonic() };
    const ledger = await openTestRedisLedger(redis, behind, { replica: await createTestReplica(clock) });
    const limits: QuotaLimit[] = [{ metric: "requests", per: "day", max: 1 }];
    await (await ledger.reserve(ask({ limits }))).commit(charge(1));
    clock.advance(12 * 3_600_000 + 60_000);
    const hold = await ledger.reserve(ask({ limits }));
    expect(hold.buckets).toMatchObject([{ used: 0, resetAt: Date.parse("2026-11-23T16:00:00Z") }]);
    await hold.commit(charge(1));
    expect(await usedOf(ledger, limits)).toEqual([1]);
  });

  it("settles a charge in the periods in which it was made, and not in one that was restarted since", async () => {
    const { clock, ledger } = await start();
    const weekly: QuotaLimit = { ...tokens, per: "week" };
    const hold = await ledger.reserve(ask({ limits: [tokens, monthly(9)], upperBound: charge(1, 100) }));
    await hold.commit(charge(1, 10));
    await ledger.reset("alice", "month", { reason: "x", by: "y" });
    clock.advance(86_400_000 / 2);
    const later = await ledger.reserve(ask({ limits: [tokens], upperBound: charge(1, 5) }));
    await later.commit(charge(1, 5));
    await hold.settle(settlement(charge(1, 80)));
    expect(await usedOf(ledger, [tokens, weekly, { ...tokens, per: "month" }])).toEqual([5, 5, 5]);
    expect(await usedOf(ledger, [{ ...tokens, per: "total" }])).toEqual([85]);
  });

  it("gives back what a dead node held, and leaves what it had charged", async () => {
    const { clock, redis, node, ledger } = await start();
    const dying = mortal(redis);
    const dead = await openTestRedisLedger(dying, clock);
    const limits = [tokens];
    await dead.reserve(ask({ limits, upperBound: charge(1, 100), apiKey: "key-1" }));
    const charged = await dead.reserve(ask({ limits, upperBound: charge(1, 200) }));
    await charged.commit(charge(1, 30));
    const alive = await ledger.reserve(ask({ limits, upperBound: charge(1, 50) }));
    dying.die();
    clock.advance(leaseMs - 1);
    await ledger.leases.renew();
    clock.advance(2);
    const other = await node();
    await other.leases.reap();
    expect(await other.buckets("alice", limits)).toMatchObject([{ used: 30, reserved: 50 }]);
    await alive.commit(charge(1, 50));
    expect(await alive.settle(settlement(charge(1, 50)))).toMatchObject([{ used: 80, reserved: 0 }]);
  });

  it("lets the last word to a settlement that comes after its lease is over", async () => {
    const { clock, ledger, node } = await start();
    const other = await node();
    const limits = [tokens];
    const [uncommitted, committed] = [
      await ledger.reserve(ask({ limits, upperBound: charge(1, 100) })),
      await ledger.reserve(ask({ limits, upperBound: charge(1, 100) })),
    ];
    await committed.commit(charge(1, 10));
    clock.advance(leaseMs + 1);
    await other.leases.reap();
    expect(await other.buckets("alice", limits)).toMatchObject([{ used: 10, reserved: 0 }]);
    expect(await committed.grow(charge(0, 5))).toBeNull();
    expect(await other.buckets("alice", limits)).toMatchObject([{ used: 10, reserved: 95 }]);
    await uncommitted.commit(charge(1, 20));
    await uncommitted.settle(settlement(charge(1, 25)));
    await committed.settle(settlement(charge(1, 70)));
    expect(await other.buckets("alice", limits)).toMatchObject([{ used: 95, reserved: 0 }]);
  });

  it("takes no lease for over after Redis was away for long, until the live nodes have renewed theirs", async () => {
    const { clock, ledger, node } = await start();
    const other = await node();
    const hold = await ledger.reserve(ask({ limits: [tokens], upperBound: charge(1, 100) }));
    await other.leases.reap();
    clock.advance(10 * leaseMs);
    await other.leases.reap();
    expect(await other.buckets("alice", [tokens])).toMatchObject([{ reserved: 100 }]);
    await ledger.leases.renew();
    for (let i = 0; i < 3; i++) {
      clock.advance(leaseMs / 3);
      await ledger.leases.renew();
      await other.leases.reap();
    }
    expect(await hold.settle(settlement(charge(0)))).toMatchObject([{ used: 0, reserved: 0 }]);
  });

  for (const [step, [user, group]] of Object.entries({
    ledger_reserve: [0, 0],
    ledger_commit: [1, 1],
    ledger_settle: [2, 2],
  })) {
    it(`brings a group's account up to the user's where a node died after the user's ${step}`, async () => {
      const { clock, redis, ledger } = await start();
      const dying = mortal(redis);
      const dead = await openTestRedisLedger(dying, clock);
      const limits = [monthly(9), { ...shared, max: 9 }];
      const hold = await dead.reserve(ask({ limits, group: "red", upperBound: charge(2) }));
      if (step !== "ledger_reserve") {
        if (step === "ledger_commit") dying.dieAfter(step);
        await hold.commit(charge(1));
        await attempt(() => hold.grow(charge(0))).catch(() => undefined);
        dying.dieAfter(step);
        await hold.settle(settlement(charge(2)));
      } else dying.die();
      clock.advance(leaseMs + 1);
      await ledger.leases.reap();
      expect(await ledger.buckets("alice", limits)).toMatchObject([
        { used: user, reserved: 0 },
        { used: group, reserved: 0 },
      ]);
    });
  }

  it("lets exactly as many through as the group has room for, of users with limits of their own", async () => {
    const { node, ledger } = await start();
    const nodes = [ledger, await node(), await node()];
    // Room for 2 x 3 + 20 by the users' limits; for 12 by the group's.
    const limits = (max: number) => [monthly(max), { ...shared, max: 12 }];
    const users = [["alice", 3] as const, ["bob", 3] as const, ["carol", 20] as const];
    const asks = Array.from({ length: 90 }, async (_, index) => {
      const [user, max] = users[index % 3] ?? ["carol", 20];
      return (nodes[(index >> 2) % 3] ?? ledger).reserve(ask({ user, limits: limits(max), group: "red" }));
    });
    const results = await Promise.allSettled(asks);
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(12);
    await eventually(async () => {
      const sums = await Promise.all(users.map(async ([user]) => ledger.buckets(user, limits(20))));
      expect(sums.reduce((sum, [own]) => sum + (own?.reserved ?? 0), 0)).toBe(12);
      expect(sums[0]?.[1]?.reserved).toBe(12);
    });
  });

  it("counts once what is called again after a cut connection, and nothing that was refused", async () => {
    const proxy = await startFaultProxy(`http://127.0.0.1:${server().port}`);
    const url = proxy.url.replace("http", "redis");
    const direct = await open();
    const keyPrefix = newPrefix();
    const redis = await open({ url, keyPrefix, timeoutMs: 20_000 });
    await seedTags(redis);
    const clock: Clock = { now: () => Date.now(), monotonic: () => performance.now() };
    const ledger = await openTestRedisLedger(redis, clock);
    const limits: QuotaLimit[] = [{ ...tokens, per: "total", max: 60 }, monthly(1e6)];
    let admitted = 0;
    let asked = 0;
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        for (let i = 0; i < 12; i++) {
          // What was asked arrives; the answer does not.
          if (++asked % 8 === 0) proxy.down.losesNext = true;
          try {
            const hold = await ledger.reserve(ask({ limits, upperBound: charge(1, 1) }));
            admitted++;
            await hold.commit(charge(1, 1));
            await hold.settle(settlement(charge(1, 1)));
          } catch (error) {
            expect(error).toMatchObject({ code: "quota_exceeded" });
          }
        }
      }),
    );
    expect(redis.status().repeated).toBeGreaterThan(0);
    expect(admitted).toBe(60);
    expect(await ledger.buckets("alice", limits)).toMatchObject([
      { used: 60, reserved: 0 },
      { used: 60, reserved: 0 },
    ]);
    expect(direct.status().connected).toBe(true);
    await proxy.close();
  });

  it("sells nothing for a tag that has lost what the node knows, and goes on once it is repaired", async () => {
    const base = await createTestReplica(createManualClock(startsAt));
    let repairs: (tag: string) => Promise<void> = () => Promise.reject(new Error("not now"));
    const replica: LedgerReplica = { ...base, lastSeq: () => 0, repair: (tag) => repairs(tag) };
    const { redis, ledger } = await start({ replica });
    const logseq = redis.keyIn(redis.tagOf("alice"), "logseq");
    await redis.send(logseq, ["DEL", logseq]);
    await expect(ledger.reserve(ask())).rejects.toThrow("not now");
    await expect(ledger.adjust("alice", charge(1), { reason: "x", by: "y" })).rejects.toThrow("not now");
    repairs = () => seedTags(redis);
    expect((await ledger.reserve(ask())).buckets).toMatchObject([{ reserved: 1 }]);
  });

  it("takes an account that is gone from Redis for a loss, if something was counted in it", async () => {
    const base = await createTestReplica(createManualClock(startsAt));
    const replica: LedgerReplica = { ...base, hasBegun: (account) => account === "alice" };
    const { ledger } = await start({ replica });
    await expect(ledger.reserve(ask())).rejects.toThrow("nothing can be repaired");
    expect((await ledger.reserve(ask({ user: "bob" }))).buckets).toMatchObject([{ reserved: 1 }]);
  });

  it("makes a charge and its end in one call where the charge was lost, after the answer to neither", async () => {
    const lost: Charge = charge(1, 10);
    let isAway = false;
    const { redis, ledger, connection } = await start(
      {},
      {
        wrap: (redis) => ({
          ...redis,
          call: (...given) => (isAway ? Promise.reject(new Error("away")) : redis.call(...given)),
        }),
      },
    );
    const hold = await ledger.reserve(ask({ limits: [tokens], upperBound: charge(1, 50) }));
    isAway = true;
    expect(await hold.commit(lost)).toMatchObject([{ used: 10, reserved: 40 }]);
    expect(await hold.settle(settlement(charge(1, 30)))).toMatchObject([{ used: 30, reserved: 0 }]);
    expect(ledger.stats()).toEqual({ held: 1, late: 1 });
    isAway = false;
    await eventually(() => {
      expect(ledger.stats()).toEqual({ held: 0, late: 0 });
    });
    expect(await ledger.buckets("alice", [tokens])).toMatchObject([{ used: 30, reserved: 0 }]);
    const log = redis.keyIn(redis.tagOf("alice"), "log");
    const records = JSON.stringify(await connection.send(log, ["XRANGE", log, "-", "+"]));
    expect(records.match(/"charge"|"settle"/g)).toEqual(['"charge"', '"settle"']);
    expect(await ledger.usage({ from: "2026-11-22", to: "2026-11-22" })).toMatchObject([{ tokens: 30, unsettled: 0 }]);
  });

  it("with strict durability takes a charge that too few replicas have for none", async () => {
    const { ledger } = await start(
      { storage: { durability: "strict" }, state: { lease_seconds: 30, min_replicas: 1 } },
      { timeoutMs: 300 },
    );
    const hold = await ledger.reserve(ask({ limits: [tokens], upperBound: charge(1, 50) }));
    await expect(hold.commit(charge(1, 10))).rejects.toThrow("did not answer");
    expect(hold.committed).toBe(false);
    expect(await hold.settle(settlement(charge(0), "refused"))).toMatchObject([{ used: 0, reserved: 0 }]);
  });
});
