import { expect, it } from "vitest";
import { ClientDisconnectedError, type DisconnectSignal } from "../../src/lib/disconnect-signal.ts";
import { type Redis, replyList } from "../../src/lib/redis/redis.ts";
import type { Permit, PermitKind, PermitRequest, PermitScope } from "../../src/limits/concurrency.ts";
import { createRedisConcurrency, type RedisConcurrency } from "../../src/limits/redis/redis-concurrency.ts";
import { eventually } from "../support/eventually.ts";
import { fc } from "../support/fast-check.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { describeWithRedis, newPrefix, openTestRedis, useRedis } from "../support/redis-server.ts";

interface Client extends DisconnectSignal {
  gone: boolean;
}

const client = (): Client => ({ gone: false, onGone: undefined });
const leave = (who: Client): void => {
  who.gone = true;
  who.onGone?.();
};
const scope = (kind: PermitKind, key: string, max: number): PermitScope => ({ kind, key, max });
const ask = (user: string, max: number, ...others: readonly PermitScope[]): PermitRequest => ({
  requestId: "r",
  user,
  weight: 1,
  providers: [],
  scopes: [scope("user", user, max), ...others],
});
const patient = { maxWaitMs: 60_000, maxWaiting: 100, maxWaitingTotal: 1000 };
const impatient = { ...patient, maxWaitMs: 0 };

describeWithRedis("permits over Redis", () => {
  const server = useRedis();
  const limiterOf = (redis: Redis, rule = patient, leaseMs = 30_000): RedisConcurrency =>
    createRedisConcurrency({ redis, rule, leaseMs, now: () => performance.now() });
  const open = async (keyPrefix: string, rule = patient, leaseMs = 30_000) =>
    limiterOf(await server.open({ keyPrefix }), rule, leaseMs);

  async function keysOf(redis: Redis): Promise<readonly string[]> {
    const [prefix = ""] = redis.keyIn("00", "").split(":");
    return replyList(await redis.send("", ["KEYS", `${prefix}:*`])).map(String);
  }

  /** Places taken in scopes, and entries in their lines, as Redis has them. */
  async function stored(redis: Redis): Promise<Readonly<Record<string, number>>> {
    const sets = (await keysOf(redis)).filter((key) => /^[^:]+:[^:]+:(permit|line):/.test(key));
    const sizes = await Promise.all(sets.map((key) => redis.send(key, ["ZCARD", key])));
    return Object.fromEntries(sets.map((key, index) => [key.split(":").slice(2).join(":"), Number(sizes[index])]));
  }

  it("gives no more than the cap over 4 processes, and nothing of what it refuses", async () => {
    const keyPrefix = newPrefix();
    const limiters = await Promise.all(Array.from({ length: 4 }, () => open(keyPrefix, impatient)));
    const model = scope("model", "m", 10);
    const asks = Array.from({ length: 200 }, (_, index) =>
      Promise.resolve(limiters[index % 4]?.acquire(ask(`u${index % 8}`, 2, model), client())),
    );
    const all = await Promise.allSettled(asks);
    const permits = all.flatMap((one) => (one.status === "fulfilled" && one.value !== undefined ? [one.value] : []));
    expect(permits.length).toBeLessThanOrEqual(10);
    const redis = await server.open({ keyPrefix });
    const before = await stored(redis);
    expect(before["permit:model/m"]).toBe(permits.length);
    expect(Object.entries(before).reduce((sum, [key, n]) => sum + (key.startsWith("permit:user") ? n : 0), 0)).toBe(
      permits.length,
    );
    for (const permit of permits) await permit.release();
    expect(await stored(redis)).toEqual({});
  });

  const needs = fc
    .record({
      user: fc.constantFrom("a", "b", "c"),
      group: fc.constantFrom(null, scope("group", "g", 2)),
      model: fc.constantFrom(null, scope("model", "m1", 1), scope("model", "m2", 2)),
      total: fc.constantFrom(null, scope("process", "", 3)),
      providers: fc.subarray([
        scope("provider", "p1", 2),
        scope("provider", "p2", 1),
        scope("provider", "p3", Infinity),
      ]),
      node: fc.nat({ max: 2 }),
    })
    .map(({ user, group, model, total, providers, node }) => ({
      request: {
        ...ask(user, 3),
        providers,
        scopes: [scope("user", user, 3), group, model, total].filter((x) => x !== null),
      },
      node,
    }));
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ acquire: needs }) },
    { weight: 2, arbitrary: fc.record({ release: fc.nat(50) }) },
    { weight: 1, arbitrary: fc.record({ leave: fc.nat(50) }) },
    { weight: 1, arbitrary: fc.record({ move: fc.nat(50), to: fc.constantFrom("p1", "p2", "p3") }) },
  );

  it("loses, doubles and forgets no place, whatever is acquired, moved, released and left on 3 processes", async () => {
    const property = fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const keyPrefix = newPrefix();
      const limiters = await Promise.all([0, 1, 2].map(() => open(keyPrefix)));
      const requests: { request: PermitRequest; node: number; signal: Client; permit?: Permit; state: string }[] = [];
      const inState = (state: string) => requests.filter((one) => one.state === state);
      const pick = (state: string, which: number) => inState(state)[which % Math.max(1, inState(state).length)];
      const caps: Record<string, number> = { "user a": 3, "user b": 3, "user c": 3, "group g": 2, "model m1": 1 };
      Object.assign(caps, { "model m2": 2, "provider p1": 2, "provider p2": 1 });

      function check(): void {
        const counts: Record<string, number> = {};
        for (const { request, permit, node } of inState("held")) {
          const all = request.scopes.map(({ kind, key }) =>
            kind === "process" ? `process ${node}` : `${kind} ${key}`,
          );
          if (permit?.provider != null) all.push(`provider ${permit.provider}`);
          for (const name of all) counts[name] = (counts[name] ?? 0) + 1;
        }
        for (const [name, count] of Object.entries(counts)) {
          const max = name.startsWith("process") ? 3 : (caps[name] ?? Infinity);
          expect(count, name).toBeLessThanOrEqual(max);
        }
        for (const [node, limiter] of limiters.entries())
          expect(limiter.inFlight()).toBeGreaterThanOrEqual(inState("held").filter((one) => one.node === node).length);
      }

      for (const one of steps) {
        if ("acquire" in one) {
          const entry: (typeof requests)[number] = { ...one.acquire, signal: client(), state: "asking" };
          requests.push(entry);
          Promise.resolve(limiters[entry.node]?.acquire(entry.request, entry.signal)).then(
            (permit) => {
              entry.state = "held";
              if (permit !== undefined) entry.permit = permit;
            },
            () => (entry.state = "gone"),
          );
        } else if ("release" in one) {
          const entry = pick("held", one.release);
          if (entry === undefined) continue;
          entry.state = "released";
          await entry.permit?.release();
        } else if ("leave" in one) {
          const entry = pick("asking", one.leave);
          if (entry !== undefined) leave(entry.signal);
        } else {
          const entry = pick("held", one.move);
          const max = one.to === "p1" ? 2 : one.to === "p2" ? 1 : Infinity;
          if (entry?.permit?.provider != null) await entry.permit.move(scope("provider", one.to, max));
        }
        check();
      }
      // Who still waits gets a turn as the others end.
      await eventually(async () => {
        for (const entry of inState("held")) {
          entry.state = "released";
          await entry.permit?.release();
        }
        check();
        expect([...inState("asking"), ...inState("held")]).toHaveLength(0);
      });
      expect(limiters.map((limiter) => [limiter.inFlight(), limiter.waiting()])).toEqual([0, 1, 2].map(() => [0, 0]));
      const redis = await server.open({ keyPrefix });
      await eventually(async () => {
        expect(await stored(redis)).toEqual({});
      });
      for (const limiter of limiters) limiter.close();
    });
    await fc.assert(property, { numRuns: 15 });
  });

  /** Holds the only place of a model, lets requests wait for it on processes, then releases and notes who comes when. */
  async function orderOf(waiting: readonly { readonly on: number; readonly user: string; readonly weight?: number }[]) {
    const keyPrefix = newPrefix();
    const limiters = await Promise.all([0, 1, 2].map(() => open(keyPrefix)));
    const model = scope("model", "m", 1);
    const first = await limiters[0]?.acquire(ask("holder", 9, model), client());
    const order: string[] = [];
    const all: Promise<void>[] = [];
    const redis = await server.open({ keyPrefix });
    const queues = new Set<string>();
    for (const [index, { on, user, weight = 1 }] of waiting.entries()) {
      const acquired = Promise.resolve(limiters[on]?.acquire({ ...ask(user, 99, model), weight }, client()));
      all.push(
        acquired.then(async (permit) => {
          order.push(user);
          await permit?.release();
        }),
      );
      queues.add(`${on} ${user}`);
      await eventually(async () => {
        expect(limiters.reduce((sum, limiter) => sum + limiter.waiting(), 0)).toBe(index + 1);
        expect((await stored(redis))["line:model/m"]).toBe(queues.size);
      });
    }
    await first?.release();
    await Promise.all(all);
    return order;
  }

  it("lets users take turns over all processes, so that many who wait at one do not starve another's", async () => {
    const many = Array.from({ length: 12 }, () => ({ on: 0, user: "a" }));
    const order = await orderOf([...many, { on: 1, user: "b" }, { on: 2, user: "c" }, { on: 1, user: "b" }]);
    // By turns a has four of the first seven at the most, and all of them if it had what it came first for. A turn may come
    // just before another process has its next request in line.
    expect(order.slice(0, 7).sort()).toEqual(["a", "a", "a", "a", "b", "b", "c"]);
  });

  it("gives a user no more turns for waiting at several processes", async () => {
    const order = await orderOf([
      ...[0, 1, 2, 0, 1, 2].map((on) => ({ on, user: "a" })),
      ...[0, 1, 2].map((on) => ({ on, user: `b${on}` })),
    ]);
    // Those of a that came before b's have their turns of their own, one each; then b's come before a's others.
    expect(order.slice(0, 6).filter((user) => user.startsWith("b"))).toHaveLength(3);
  });

  it("gives users turns by their weights", async () => {
    const order = await orderOf([
      ...Array.from({ length: 8 }, () => ({ on: 0, user: "light" })),
      ...Array.from({ length: 8 }, () => ({ on: 1, user: "heavy", weight: 3 })),
    ]);
    expect(order.slice(0, 8).filter((user) => user === "heavy").length).toBeGreaterThanOrEqual(5);
  });

  it("lets others pass who can use what is free while one waits for something else", async () => {
    const keyPrefix = newPrefix();
    const [one, two] = [await open(keyPrefix), await open(keyPrefix)];
    const [slow, model] = [scope("provider", "slow", 1), scope("model", "m", 2)];
    const holder = await one.acquire({ ...ask("x", 9, model), providers: [slow] }, client());
    const stuck = one.acquire({ ...ask("y", 9, model), providers: [slow] }, client());
    await eventually(() => {
      expect(one.waiting()).toBe(1);
    });
    const passing = await two.acquire(ask("z", 9, model), client());
    await passing.release();
    await holder.release();
    await (await stuck).release();
  });

  it("is woken by a release elsewhere, and finds a free place even where it was not told", async () => {
    const keyPrefix = newPrefix();
    const deaf: Redis = { ...(await server.open({ keyPrefix })), onChange: () => undefined };
    const [one, two] = [await open(keyPrefix), limiterOf(deaf)];
    const held = await one.acquire(ask("a", 1), client());
    const waiting = two.acquire(ask("a", 1), client());
    await eventually(() => {
      expect(two.waiting()).toBe(1);
    });
    await held.release();
    await (await waiting).release();
  });

  it("counts the cap of the process for each process alone, and serves those who wait for it", async () => {
    const keyPrefix = newPrefix();
    const [one, two] = [await open(keyPrefix), await open(keyPrefix)];
    const total = scope("process", "", 1);
    const held = await one.acquire(ask("a", 9, total), client());
    await (await two.acquire(ask("a", 9, total), client())).release();
    const next = ["b", "c"].map((user) => one.acquire(ask(user, 9, total), client()));
    await eventually(() => {
      expect(one.waiting()).toBe(2);
    });
    await held.release();
    for (const permit of next) await (await permit).release();
    expect(one.inFlight()).toBe(0);
  });

  it("gets back the permits of a process that has died, and skips those who waited there", async () => {
    const keyPrefix = newPrefix();
    const dying = await server.open({ keyPrefix });
    const [dead, alive] = [limiterOf(dying, patient, 600), await open(keyPrefix, patient, 600)];
    const model = scope("model", "m", 1);
    await dead.acquire(ask("a", 9, model), client());
    void Promise.resolve(dead.acquire(ask("b", 9, model), client())).catch(() => undefined);
    const redis = await server.open({ keyPrefix });
    await eventually(async () => {
      expect((await stored(redis))["line:model/m"]).toBe(1);
    });
    const next = alive.acquire(ask("c", 9, model), client());
    await eventually(async () => {
      expect((await stored(redis))["line:model/m"]).toBe(2);
    });
    await dying.close();
    const permit = await next;
    await permit.release();
    dead.close();
    expect(Object.keys(await stored(redis)).filter((name) => name.startsWith("permit:model"))).toEqual([]);
  });

  it("keeps the permits of a process that lives for as long as they are held, also after Redis has lost them", async () => {
    const keyPrefix = newPrefix();
    const [one, two] = [await open(keyPrefix, impatient, 600), await open(keyPrefix, impatient, 600)];
    const held = await one.acquire(ask("a", 1), client());
    const redis = await server.open({ keyPrefix });
    const key = redis.keyIn(redis.tagOf("a"), "permit", "user/a");
    const endOf = async (): Promise<number> => {
      const [id] = replyList(await redis.send(key, ["ZRANGE", key, "0", "-1"]));
      return Number(await redis.send(key, ["ZSCORE", key, String(id)]));
    };
    const end = await endOf();
    await redis.send(key, ["DEL", key]);
    await eventually(async () => {
      expect(await endOf()).toBeGreaterThan(end + 600);
    });
    await expect(two.acquire(ask("a", 1), client())).rejects.toMatchObject({
      code: "concurrency_exceeded",
      extras: { details: { scope: "user", max: 1 } },
    });
    await held.release();
    await (await two.acquire(ask("a", 1), client())).release();
  });

  it("leaves nothing held and nobody in line after answers were lost and clients have left", async () => {
    const keyPrefix = newPrefix();
    const proxy = await startFaultProxy(server.server().url);
    const shaky = limiterOf(await openTestRedis({ url: proxy.url, keyPrefix, timeoutMs: 5000 }));
    const steady = await open(keyPrefix);
    const model = scope("model", "m", 3);
    let asked = 0;
    let running = 0;
    let most = 0;
    const work = async (limiter: RedisConcurrency, user: string) => {
      for (let n = 0; n < 12; n++) {
        const signal = client();
        // What was asked arrives; the answer does not.
        if (++asked % 12 === 0) proxy.down.losesNext = true;
        const acquiring = Promise.resolve(limiter.acquire(ask(user, 2, model), signal));
        if (n % 6 === 5) setTimeout(leave, 3, signal);
        const permit = await acquiring.catch((error: unknown) => {
          if (error instanceof ClientDisconnectedError) return null;
          throw error;
        });
        if (permit === null) continue;
        most = Math.max(most, ++running);
        await new Promise((resolve) => setTimeout(resolve, 1));
        running--;
        await permit.release();
      }
    };
    const all = ["a", "b", "c", "d"].flatMap((user) => [work(shaky, user), work(steady, user)]);
    await Promise.all(all);
    expect(proxy.accepted).toBeGreaterThan(3);
    expect(most).toBeLessThanOrEqual(3);
    expect([shaky.inFlight(), shaky.waiting(), steady.inFlight(), steady.waiting()]).toEqual([0, 0, 0, 0]);
    const redis = await server.open({ keyPrefix });
    await eventually(async () => {
      expect(await stored(redis)).toEqual({});
    });
    await proxy.close();
  });

  it("has no key that stays for ever", async () => {
    const redis = await server.open();
    const limiter = limiterOf(redis);
    await limiter.acquire(ask("a", 1, scope("model", "m", 1)), client());
    void Promise.resolve(limiter.acquire(ask("b", 1, scope("model", "m", 1)), client())).catch(() => undefined);
    await eventually(async () => {
      expect((await stored(redis))["line:model/m"]).toBe(1);
    });
    const keys = await keysOf(redis);
    expect(keys.length).toBeGreaterThan(4);
    for (const key of keys) expect(Number(await redis.send(key, ["PTTL", key]))).toBeGreaterThan(0);
    limiter.close();
  });
});
