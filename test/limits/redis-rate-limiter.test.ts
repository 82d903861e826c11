import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Redis } from "../../src/lib/redis/redis.ts";
import type { RateTicket } from "../../src/limits/rate-limiter.ts";
import { createRedisRateLimiter, type RedisRateLimiter } from "../../src/limits/redis/redis-rate-limiter.ts";
import type { RateRule } from "../../src/limits/rate-rules.ts";
import { fc } from "../support/fast-check.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { createManualClock } from "../support/manual-clock.ts";
import {
  type RateStep,
  someHeldSteps,
  someMove,
  someRequest,
  someRule,
  someTokenRule,
  someUse,
} from "../support/rate-cases.ts";
import { type ModelTicket, RateModel } from "../support/rate-model.ts";
import { perSecond, rateAsk, refusalIn, ticketOf, unsent } from "../support/rates.ts";
import { openClockedRedis } from "../support/redis-clock.ts";
import { describeWithRedis, newPrefix, openTestRedis, useRedis } from "../support/redis-server.ts";

const nodes = 4;
const hourly = (max: number, some: Partial<RateRule> = {}) => perSecond(max, { perMs: 3_600_000, burst: max, ...some });

describeWithRedis("rates over Redis", () => {
  const server = useRedis();
  const real = async (rules: readonly RateRule[], keyPrefix = newPrefix()) =>
    createRedisRateLimiter({ redis: await server.open({ keyPrefix }), rules });
  const several = async (rules: readonly RateRule[]) => {
    const keyPrefix = newPrefix();
    return Promise.all(Array.from({ length: nodes }, () => real(rules, keyPrefix)));
  };

  describe("with a clock of the test", () => {
    const clock = createManualClock(1e9);
    let redis: Redis;
    let limiters: readonly RedisRateLimiter[];
    beforeEach(async () => {
      redis = await openClockedRedis(server.server().url, clock);
      limiters = Array.from({ length: nodes }, () => createRedisRateLimiter({ redis, rules: [] }));
    });
    // Functions keep the time that they were given.
    afterEach(() => redis.onEveryServer(["FUNCTION", "FLUSH"]));

    it("decides over 4 processes exactly as leaky buckets in fractions do", async () => {
      let cases = 0;
      const step: fc.Arbitrary<RateStep> = fc.oneof(
        { weight: 6, arbitrary: fc.record({ take: someRequest }) },
        { weight: 2, arbitrary: someMove },
        { weight: 3, arbitrary: fc.record({ settle: fc.nat(50), use: someUse }) },
        { weight: 3, arbitrary: fc.record({ ms: fc.oneof(fc.nat(50), fc.nat(5000), fc.nat(1e7)) }) },
      );
      const someCase = fc.oneof(
        fc.tuple(fc.array(someRule, { minLength: 1, maxLength: 6 }), fc.array(step, { minLength: 1, maxLength: 40 })),
        fc.tuple(fc.tuple(someTokenRule), someHeldSteps),
      );
      const property = fc.asyncProperty(someCase, async ([unnamed, steps]) => {
        cases++;
        const rules = unnamed.map((rule, index) => ({ ...rule, name: `case${cases}_${index}` }));
        for (const limiter of limiters) limiter.configure(rules);
        const model = new RateModel(rules);
        const tickets: { readonly real: RateTicket; readonly model: ModelTicket }[] = [];
        let turn = 0;
        const next = () => limiters[turn++ % nodes] ?? never();
        const pick = (index: number) => tickets[index % Math.max(1, tickets.length)];
        for (const one of steps) {
          const now = clock.now();
          if ("ms" in one) clock.advance(one.ms);
          else if ("move" in one) {
            const ticket = pick(one.move);
            if (ticket === undefined) continue;
            const refusal = await ticket.real.move(one.to);
            expect(refusal?.retryAfterMs ?? null).toBe(model.move(ticket.model, one.to, now));
            expect(ticket.real.provider).toBe(ticket.model.provider);
          } else if ("settle" in one) {
            const ticket = pick(one.settle);
            if (ticket === undefined) continue;
            tickets.splice(tickets.indexOf(ticket), 1);
            model.settle(ticket.model, one.use, now);
            await ticket.real.settle(one.use);
            await ticket.real.settle(one.use);
          } else {
            const expected = model.take(one.take, now);
            const taken = await next().take(one.take);
            if ("settle" in taken) {
              if (!("ticket" in expected)) throw new Error(`let through against ${expected.refusing.join()}`);
              expect(taken.provider).toBe(expected.ticket.provider);
              for (const state of taken.states) {
                const rule = rules.find(({ name }) => name === state.rule);
                if (rule?.by.includes("provider") !== true)
                  expect(state).toMatchObject(model.state(state.rule, one.take, now));
              }
              tickets.push({ real: taken, model: expected.ticket });
            } else {
              if ("ticket" in expected) throw new Error(`refused by ${taken.rule}`);
              expect(expected.refusing).toContain(taken.rule);
              expect(taken.tooLarge !== null).toBe(expected.isTooLarge);
              if (!expected.isTooLarge) expect(taken.retryAfterMs).toBe(expected.waitMs);
            }
          }
        }
        // Nothing was taken that the model doesn't know of, above all not by what was refused.
        for (const { name, buckets } of await next().rules()) expect(buckets).toBe(model.used(name, clock.now()));
      });
      await fc.assert(property, { numRuns: 60 });
    });

    it("lets through over 4 processes what one lets through, whoever is asked", async () => {
      const rules = [perSecond(100), perSecond(30, { name: "user", by: ["user"] })];
      for (const limiter of limiters) limiter.configure(rules);
      const model = new RateModel(rules);
      for (let turn = 0; turn < 20; turn++) {
        const asks = Array.from({ length: 40 }, (_, index) => rateAsk({ user: `u${index % 5}` }));
        const expected = asks.filter((ask) => "ticket" in model.take(ask, clock.now())).length;
        let admitted = 0;
        for (const [index, ask] of asks.entries())
          if (refusalIn((await limiters[index % nodes]?.take(ask)) ?? never()) === null) admitted++;
        expect(admitted).toBe(expected);
        clock.advance(97);
      }
    });

    it("keeps a bucket as full as it was when its rule changes, on whichever process that is known first", async () => {
      const [one, two] = limiters as [RedisRateLimiter, RedisRateLimiter];
      one.configure([hourly(10)]);
      two.configure([hourly(100)]);
      const left = async (limiter: RedisRateLimiter) => (await limiter.statesOf(rateAsk()))[0]?.remaining;
      for (let n = 0; n < 5; n++) ticketOf(await one.take(rateAsk()));
      expect([await left(one), await left(two)]).toEqual([5, 50]);
      ticketOf(await two.take(rateAsk()));
      expect([await left(one), await left(two)]).toEqual([4, 49]);
    });

    it("puts back by the same share what had flowed off when its rule changes, and leaves buckets as they were read before", async () => {
      const [limiter] = limiters as [RedisRateLimiter];
      const use = { wasSent: true, tokens: 0, outputTokens: 0 };
      const tpm = (max: number) => perSecond(max, { name: "tpm", metric: "tokens", perMs: 60_000, burst: max });
      limiter.configure([tpm(1000)]);
      const held: RateTicket[] = [];
      for (let n = 0; n < 4; n++) {
        held.push(ticketOf(await limiter.take(rateAsk({ tokens: 600 }))));
        clock.advance(36_000);
      }
      ticketOf(await limiter.take(rateAsk({ tokens: 1000 })));
      await held[0]?.settle(use);
      limiter.configure([tpm(100)]);
      const left = async () => (await limiter.statesOf(rateAsk({ tokens: 1 })))[0]?.remaining;
      expect(await left()).toBe(60);
      // 600 of 1000 were put back already, so 400 can be, which are 40 of 100.
      await held[1]?.settle(use);
      expect(await left()).toBe(100);
      ticketOf(await limiter.take(rateAsk({ tokens: 100 })));
      await held[2]?.settle(use);
      expect(await left()).toBe(0);
      const keys = (await redis.onEveryServer(["KEYS", `*${redis.keyIn("", "rate", "tpm").split(":").at(-1) ?? ""}*`]))
        .flat()
        .map(String);
      const texts = await Promise.all(
        keys.filter((key) => key.includes(":rate:")).map((key) => redis.send("", ["GET", key])),
      );
      expect(texts.length).toBeGreaterThan(0);
      for (const text of texts) expect(text).toMatch(/^\d+ \d+ \d+ \d+$/);
    });

    it("tells a wait that holds after the rule has become slower, and after the clock was set back", async () => {
      const [limiter] = limiters as [RedisRateLimiter];
      limiter.configure([perSecond(1000, { burst: 1 })]);
      ticketOf(await limiter.take(rateAsk()));
      limiter.configure([perSecond(1, { burst: 1 })]);
      expect(refusalIn(await limiter.take(rateAsk()))).toMatchObject({ retryAfterMs: 1000 });
      clock.advance(-60_000);
      expect(refusalIn(await limiter.take(rateAsk()))).toMatchObject({ retryAfterMs: 1000 });
      clock.advance(999);
      expect(refusalIn(await limiter.take(rateAsk()))).toMatchObject({ retryAfterMs: 1 });
      clock.advance(1);
      ticketOf(await limiter.take(rateAsk()));
    });
  });

  it("admits exactly the room of both slots where many ask at once, and refusals leave nothing", async () => {
    const rules = [hourly(100), hourly(30, { name: "user", by: ["user"] })];
    const limiters = await several(rules);
    const all = await Promise.all(
      Array.from({ length: 400 }, (_, index) =>
        Promise.resolve(limiters[index % nodes]?.take(rateAsk({ user: `u${index % 8}` }))),
      ),
    );
    const admitted = all.filter((taken) => taken !== undefined && "settle" in taken).length;
    // What another request holds for a moment may refuse one, but never lets more through.
    expect(admitted).toBeLessThanOrEqual(100);
    const user = async (name: string) => limiters[0]?.statesOf(rateAsk({ user: name }));
    expect((await user("u0"))?.[0]?.remaining).toBe(100 - admitted);
    let later = 0;
    for (let index = 0; index < 400; index++)
      if (refusalIn((await limiters[index % nodes]?.take(rateAsk({ user: `u${index % 8}` }))) ?? never()) === null)
        later++;
    expect(admitted + later).toBe(100);
  });

  it("takes once whatever answers are lost, and nothing for what it could not answer", async () => {
    const proxy = await startFaultProxy(server.server().url);
    const keyPrefix = newPrefix();
    const redis = await openTestRedis({ url: proxy.url, keyPrefix, timeoutMs: 5000 });
    const rules = [hourly(200), hourly(150, { name: "user", by: ["user"] })];
    const limiter = createRedisRateLimiter({ redis, rules });
    let admitted = 0;
    let sent = 0;
    const asking = Array.from({ length: 8 }, async () => {
      while (sent < 240) {
        // What was asked arrives; the answer does not.
        if (++sent % 20 === 0) proxy.down.losesNext = true;
        const taken = await Promise.resolve(limiter.take(rateAsk())).catch(() => null);
        if (taken === null || !("settle" in taken)) continue;
        admitted++;
        if (admitted % 5 !== 0) continue;
        admitted--;
        await taken.settle(unsent);
      }
    });
    await Promise.all(asking);
    expect(redis.status().repeated).toBeGreaterThan(0);
    const [global, user] = await (await real(rules, keyPrefix)).statesOf(rateAsk());
    expect([global?.remaining, user?.remaining]).toEqual([200 - admitted, 150 - admitted]);
    await proxy.close();
  });

  it("has no key left once nothing is taken", async () => {
    const redis = await server.open();
    const limiter = createRedisRateLimiter({ redis, rules: [perSecond(10), perSecond(10, { by: ["user"] })] });
    await ticketOf(await limiter.take(rateAsk())).settle({ wasSent: true, tokens: 1, outputTokens: 1 });
    await limiter.takeFreeDisconnect({ user: "alice", requestId: "r", max: 1 });
    const keys = (await redis.onEveryServer(["KEYS", `${redis.keyIn("00", "").split(":")[0] ?? ""}:*`])).flat();
    expect(keys.length).toBeGreaterThan(4);
    for (const key of keys) expect(Number(await redis.send("", ["PTTL", String(key)]))).toBeGreaterThan(0);
  });
});

function never(): never {
  throw new Error("no such limiter");
}
