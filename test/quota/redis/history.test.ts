import { expect, it, onTestFinished } from "vitest";
import { AppError } from "../../../src/errors.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import type { Hold } from "../../../src/quota/ledger.ts";
import type { RedisLedger } from "../../../src/quota/redis/redis-ledger.ts";
import { startFaultProxy, type FaultProxy } from "../../support/fault-proxy.ts";
import { ask, charge, monthly, settlement } from "../../support/ledger.ts";
import { createHistory, findUnexplained, type History } from "../../support/linearizable.ts";
import { openTestRedisLedger, seedTags } from "../../support/redis-ledger.ts";
import { describeWithRedis, newPrefix, useRedis } from "../../support/redis-server.ts";

const limit = 6;
const limits = [monthly(limit)];
const users = ["alice", "bob", "cleo", "dora"];
const workersEach = 5;
const requestsEach = 25;
const requestsInAll = users.length * workersEach * requestsEach;

interface Spending {
  readonly user: string;
  readonly ledgers: readonly RedisLedger[];
  readonly history: History;
  readonly worker: number;
  /** Before each request. */
  disturb(): void;
}

/** Reserves, charges and settles, and looks on, again and again; one of eight requests is charged in the end. */
async function spend({ user, ledgers, history, worker, disturb }: Spending): Promise<void> {
  for (let i = 0; i < requestsEach; i++) {
    disturb();
    const number = worker * requestsEach + i;
    const ledger = ledgers[number % ledgers.length];
    const amount = 1 + (number % 3);
    const hold = await history.record(
      async (): Promise<Hold | undefined> => {
        try {
          return await ledger?.reserve(ask({ user, limits, requestId: `r${number}`, upperBound: charge(amount) }));
        } catch (error) {
          if (error instanceof AppError && error.code === "quota_exceeded") return undefined;
          throw error;
        }
      },
      (hold) => ({ kind: "reserve", amount, granted: hold !== undefined }),
    );
    const final = number % 8 === 0 ? 1 : 0;
    if (hold !== undefined && (final > 0 || number % 2 === 0)) await hold.commit(charge(amount));
    if (hold !== undefined)
      await history.record(
        async () => hold.settle(settlement(charge(final))),
        () => ({ kind: "settle", returned: amount - final }),
      );
    await history.record(
      async () => ledger?.buckets(user, limits),
      (buckets) => ({ kind: "read", counted: (buckets?.[0]?.used ?? 0) + (buckets?.[0]?.reserved ?? 0) }),
    );
  }
}

describeWithRedis("the ledger over Redis", () => {
  const { open, server } = useRedis(["--appendonly", "yes", "--appendfsync", "always"]);

  it("answers as one counter that is asked one call at a time, whatever answers are lost", async () => {
    const keyPrefix = newPrefix();
    await seedTags(await open({ keyPrefix }));
    const networks: FaultProxy[] = [];
    const ledgers: RedisLedger[] = [];
    for (let node = 0; node < 3; node++) {
      const network = await startFaultProxy(server().url);
      onTestFinished(() => network.close());
      networks.push(network);
      const redis = await open({ url: network.url, keyPrefix, timeoutMs: 20_000 });
      ledgers.push(await openTestRedisLedger(redis, systemClock));
    }
    const histories = new Map(users.map((user) => [user, createHistory()]));
    let requests = 0;
    let restart: Promise<void> | undefined;
    // By the number of requests, so that a fast machine sees as many faults as a slow one.
    const disturb = () => {
      requests++;
      if (requests === requestsInAll / 2) restart = server().restart();
      if (requests % 20 !== 0) return;
      // What was sent arrives; its answer is on its way when the connection breaks.
      const network = networks[(requests / 20) % networks.length];
      if (network !== undefined) network.down.losesNext = true;
    };
    await Promise.all(
      [...histories].flatMap(([user, history]) =>
        Array.from({ length: workersEach }, (_, worker) => spend({ user, ledgers, history, worker, disturb })),
      ),
    );
    await restart;
    // All have lost answers, each time with their connection.
    expect(networks.filter(({ accepted }) => accepted > 3)).toHaveLength(networks.length);
    for (const [user, { events }] of histories)
      expect([user, findUnexplained(events, limit)]).toEqual([user, undefined]);
    for (const user of users) {
      const [bucket] = (await ledgers[0]?.buckets(user, limits)) ?? [];
      expect(bucket).toMatchObject({ reserved: 0 });
      expect(bucket?.used).toBeLessThanOrEqual(limit);
    }
  }, 120_000);
});
