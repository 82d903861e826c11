import { expect, it } from "vitest";
import type { BoardChange } from "../../src/fleet/board.ts";
import { type Fleet, openFleet } from "../../src/fleet/fleet.ts";
import { systemClock } from "../../src/lib/clock.ts";
import type { Redis } from "../../src/lib/redis/redis.ts";
import type { ProviderAdmin } from "../../src/providers/provider-admin.ts";
import { shareProviders, shareReload } from "../../src/join-fleet.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { eventually } from "../support/eventually.ts";
import { describeWithRedis, newPrefix, useRedis, useRedisCluster } from "../support/redis-server.ts";

const log = createCapturedLog();
const facts = (address: string) => () => ({
  startedAt: 1,
  version: "1.0.0",
  address,
  config: "abc",
  quota: "quota.timezone UTC",
});

describeWithRedis("the fleet", () => {
  const server = useRedis();
  const join = (redis: Redis, address = "a", leaseMs = 60_000): Promise<Fleet> =>
    openFleet({ redis, facts: facts(address), clock: systemClock, log, leaseMs });
  const several = async (count: number): Promise<readonly Fleet[]> => {
    const keyPrefix = newPrefix();
    const fleets: Fleet[] = [];
    for (let n = 0; n < count; n++) fleets.push(await join(await server.open({ keyPrefix }), `10.0.0.${n}:80`));
    return fleets;
  };

  it("has one leader, and another one with a greater term once that one has left", async () => {
    const keyPrefix = newPrefix();
    const fleets = [];
    for (let n = 0; n < 3; n++) fleets.push(await join(await server.open({ keyPrefix }), "a", 900));
    const [first, ...others] = fleets;
    expect(fleets.map((one) => one.leads())).toEqual([true, false, false]);
    const [term, told] = [first?.term() ?? 0, [] as boolean[]];
    first?.onLead((leads) => told.push(leads));
    await first?.close();
    expect([first?.leads(), first?.term(), told]).toEqual([false, 0, [false]]);
    await eventually(() => {
      expect(others.filter((one) => one.leads())).toHaveLength(1);
    });
    expect(Math.max(...others.map((one) => one.term()))).toBeGreaterThan(term);
    for (const one of others) await one.close();
  });

  it("has no two leaders when one is cut off, and another one within the lease", async () => {
    const keyPrefix = newPrefix();
    const connection = await server.open({ keyPrefix });
    const [cut, other] = [await join(connection, "a", 600), await join(await server.open({ keyPrefix }), "b", 600)];
    expect([cut.leads(), other.leads()]).toEqual([true, false]);
    await connection.close();
    await eventually(() => {
      expect([cut.leads(), other.leads()]).not.toEqual([true, true]);
      expect(other.leads()).toBe(true);
    });
    expect(cut.leads()).toBe(false);
    await other.close();
    await cut.close();
  });

  it("lets one process claim a name within a time, also where its answer is lost", async () => {
    const keyPrefix = newPrefix();
    const connection = await server.open({ keyPrefix });
    const twice: Redis = {
      ...connection,
      async send(key, command) {
        await connection.send(key, command);
        return connection.send(key, command);
      },
    };
    const [one, other] = [await join(twice), await join(await server.open({ keyPrefix }))];
    expect([await one.claim("a", 300), await one.claim("a", 300), await other.claim("a", 300)]).toEqual([
      true,
      false,
      false,
    ]);
    await eventually(async () => {
      expect(await other.claim("a", 300)).toBe(true);
    });
    await one.close();
    await other.close();
  });

  it("lists those that live, and who leads", async () => {
    const [one, two] = (await several(2)) as [Fleet, Fleet];
    const listed = await two.nodes();
    expect(listed.map(({ silentMs, ...rest }) => ({ ...rest, isRecent: silentMs < 30_000 }))).toEqual([
      { ...facts("10.0.0.0:80")(), id: one.id, isLeader: true, isThis: false, isRecent: true },
      { ...facts("10.0.0.1:80")(), id: two.id, isLeader: false, isThis: true, isRecent: true },
    ]);
    await one.close();
    expect((await two.nodes()).map(({ id }) => id)).toEqual([two.id]);
    await two.close();
  });

  it("has no process whose periods begin at other times, unless the others are gone", async () => {
    const keyPrefix = newPrefix();
    const other = await server.open({ keyPrefix });
    const joins = (quota: string): Promise<Fleet> =>
      openFleet({ redis: other, facts: () => ({ ...facts("b:80")(), quota }), clock: systemClock, log });
    const first = await join(await server.open({ keyPrefix }), "a:80");
    await expect(joins("quota.timezone Asia/Shanghai")).rejects.toThrow(
      "by quota.timezone Asia/Shanghai, but the one at a:80 over the same Redis by quota.timezone UTC",
    );
    expect((await first.nodes()).map(({ address }) => address)).toEqual(["a:80"]);
    await (await joins("quota.timezone UTC")).close();
    await first.close();
    // An older version doesn't say it.
    const older = await joins("");
    const changed = await joins("quota.timezone Asia/Shanghai");
    expect(await changed.nodes()).toHaveLength(2);
    for (const one of [older, changed]) await one.close();
  });

  it("tells all processes what is set, those that start later and those that hear of no changes too", async () => {
    const keyPrefix = newPrefix();
    const seen: string[] = [];
    const note = (who: string) => (change: BoardChange) =>
      seen.push(`${who} ${change.name}=${change.value}${change.isOwn ? " own" : ""}`);
    const one = await join(await server.open({ keyPrefix }));
    const deaf = await join({ ...(await server.open({ keyPrefix })), onChange: () => undefined });
    one.board.follow("t", note("one"));
    deaf.board.follow("t", note("deaf"));
    await one.board.set("t", "x", "1 with spaces/and slashes");
    await one.board.set("other", "y", "2");
    await eventually(() => {
      expect(seen).toEqual(["one x=1 with spaces/and slashes own", "deaf x=1 with spaces/and slashes"]);
    });
    const late = await join(await server.open({ keyPrefix }));
    late.board.follow("t", note("late"));
    expect(seen.at(-1)).toBe("late x=1 with spaces/and slashes");
    for (const fleet of [one, deaf, late]) await fleet.close();
  });

  it("puts back what Redis has lost, and goes on", async () => {
    const keyPrefix = newPrefix();
    const redis = await server.open({ keyPrefix });
    const [one, two] = [await join(redis), await join(await server.open({ keyPrefix }))];
    const seen: string[] = [];
    two.board.follow("t", ({ name, value }) => seen.push(`${name}=${value}`));
    await one.board.set("t", "x", "1");
    await one.board.set("t", "y", "1");
    await eventually(() => {
      expect(seen).toEqual(["x=1", "y=1"]);
    });
    const tag = redis.tagOf("fleet");
    for (const kind of ["board", "versions"]) await redis.send(tag, ["DEL", redis.keyIn(tag, kind)]);
    await one.board.set("t", "y", "2");
    await eventually(() => {
      expect(seen).toEqual(["x=1", "y=1", "y=2"]);
    });
    const found: string[] = [];
    await eventually(async () => {
      found.length = 0;
      const another = await join(await server.open({ keyPrefix }));
      another.board.follow("t", ({ name, value }) => found.push(`${name}=${value}`));
      await another.close();
      expect(found.sort()).toEqual(["x=1", "y=2"]);
    });
    for (const fleet of [one, two]) await fleet.close();
  });

  it("drains and restores a provider, and reloads the config, on all processes", async () => {
    const done: string[] = [];
    const admin = (who: string): ProviderAdmin => ({
      list: () => [],
      drain: (name) => name === "p" && done.push(`${who} drains`) > 0,
      restore: (name) => name === "p" && done.push(`${who} restores`) > 0,
      test: () => undefined,
    });
    const [one, two] = (await several(2)) as [Fleet, Fleet];
    const shared = [one, two].map(({ board }, index) => shareProviders(admin(String(index)), { board, log }));
    const tell = [one, two].map(({ board }, index) =>
      shareReload((by) => Promise.resolve(done.push(`${index} reloads for ${by}`)), { board, log }),
    );
    expect([shared[0]?.drain("q"), shared[0]?.drain("p")]).toEqual([false, true]);
    await eventually(() => {
      expect(done).toEqual(["0 drains", "1 drains"]);
    });
    expect(shared[1]?.restore("p")).toBe(true);
    tell[1]?.("root");
    await eventually(() => {
      expect(done.slice(2).sort()).toEqual(["0 reloads for root", "0 restores", "1 restores"]);
    });
    for (const fleet of [one, two]) await fleet.close();
  });
});

describeWithRedis("the fleet over a cluster", () => {
  const cluster = useRedisCluster();

  it("leads and tells", async () => {
    const keyPrefix = newPrefix();
    const open = async () =>
      openFleet({ redis: await cluster.open({ keyPrefix }), facts: facts("a"), clock: systemClock, log });
    const [one, two] = [await open(), await open()];
    expect([one.leads(), two.leads()]).toEqual([true, false]);
    const seen: string[] = [];
    two.board.follow("t", ({ value }) => seen.push(value));
    await one.board.set("t", "x", "1");
    await eventually(() => {
      expect(seen).toEqual(["1"]);
    });
    expect(await two.nodes()).toHaveLength(2);
    for (const fleet of [one, two]) await fleet.close();
  });
});
