import { expect, it, onTestFinished } from "vitest";
import { eventually } from "../support/eventually.ts";
import { usedOf } from "../support/ledger.ts";
import { describeWithRedis, newPrefix, type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { type Account, openReplicaNode, type ReplicaNode, spendAlways, totals } from "../support/replica-node.ts";

async function startServer(args: readonly string[] = []): Promise<RedisServer> {
  const server = await startRedisServer(args);
  onTestFinished(() => server.close());
  return server;
}

/** Two processes under load while something happens to Redis; then everything is exact, everywhere. */
async function survives(url: string, happen: (node: ReplicaNode) => Promise<void>): Promise<void> {
  const keyPrefix = newPrefix();
  const nodes = [await openReplicaNode({ url, keyPrefix }), await openReplicaNode({ url, keyPrefix })] as const;
  const seen = new Map<string, Account>();
  const stops = [spendAlways(nodes[0], ["alice", "bob"], seen), spendAlways(nodes[1], ["carol", "alice2"], seen)];
  const settled = (): number => [...seen.values()].reduce((sum, account) => sum + account.settled, 0);
  await eventually(() => {
    expect(settled()).toBeGreaterThan(50);
  });
  await happen(nodes[0]);
  const before = settled();
  await eventually(() => {
    expect(settled()).toBeGreaterThan(before + 50);
  }, 25_000);
  for (const stop of stops) await stop();
  await eventually(async () => {
    for (const node of nodes) {
      await node.replica.catchUp();
      for (const [user, { settled: count }] of seen) {
        const expected = [user, count, 70 * count];
        expect([user, ...(await usedOf(node.ledger, totals, user))]).toEqual(expected);
        expect([user, ...usedOf(node.memory, totals, user)]).toEqual(expected);
      }
    }
  });
}

describeWithRedis("charges are neither lost nor doubled", () => {
  it("when Redis restarts without data", async () => {
    const server = await startServer();
    await survives(server.url, () => server.restart());
  });

  it("when its last writes are lost, as in a failover to a replica that was behind", async () => {
    const server = await startServer(["--appendonly", "no"]);
    await survives(server.url, async ({ redis }) => {
      const key = redis.keyIn("00", "x");
      // What a replica has that was cut off then: the state of that moment, while work goes on.
      await redis.send(key, ["SAVE"]);
      await new Promise((resolve) => setTimeout(resolve, 300));
      await server.restart();
    });
  });
});
