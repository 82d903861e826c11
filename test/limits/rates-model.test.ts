import { fc } from "../support/fast-check.ts";
import { expect, it } from "vitest";
import { createMemoryRateLimiter } from "../../src/limits/memory/memory-rate-limiter.ts";
import type { RateLimitRequest, RateTicket } from "../../src/limits/rate-limiter.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { type ModelTicket, RateModel } from "../support/rate-model.ts";
import {
  type RateStep,
  someHeldSteps,
  someMove,
  someRequest,
  someRule,
  someTokenRule,
  someUse,
} from "../support/rate-cases.ts";
import { perSecond, rateAsk, ticketOf, unsent } from "../support/rates.ts";

const someStep: fc.Arbitrary<RateStep> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ take: someRequest, obeys: fc.boolean() }) },
  { weight: 2, arbitrary: someMove },
  { weight: 3, arbitrary: fc.record({ settle: fc.nat(50), use: someUse }) },
  { weight: 3, arbitrary: fc.record({ ms: fc.oneof(fc.nat(50), fc.nat(5000), fc.nat(1e7)) }) },
  { weight: 1, arbitrary: fc.record({ ms: fc.integer({ min: -1e7, max: -1 }) }) },
);

const someCase = fc.oneof(
  fc.tuple(fc.array(someRule, { minLength: 1, maxLength: 6 }), fc.array(someStep, { minLength: 1, maxLength: 60 })),
  fc.tuple(fc.array(someTokenRule, { minLength: 1, maxLength: 2 }), someHeldSteps),
);

it("decides, waits and corrects exactly as leaky buckets in fractions do, whatever the clock does", async () => {
  const property = fc.asyncProperty(someCase, async ([unnamed, steps]) => {
    const rules = unnamed.map((rule, index) => ({ ...rule, name: `rule${index}` }));
    const clock = createManualClock(1e9);
    const limiter = createMemoryRateLimiter({ rules, clock });
    const model = new RateModel(rules);
    const tickets: { readonly real: RateTicket; readonly model: ModelTicket }[] = [];
    let passed = 0;
    let seen = clock.monotonic();
    /** The time that passes: jumps back don't count, and are seen only when something is asked. */
    const now = (): number => {
      passed += Math.max(0, clock.monotonic() - seen);
      seen = clock.monotonic();
      return passed;
    };

    /** Takes from both, and returns the wait that both name; null if both let it through. */
    const take = async (request: RateLimitRequest): Promise<number | null> => {
      const expected = model.take(request, now());
      const real = await limiter.take(request);
      if ("settle" in real) {
        if (!("ticket" in expected)) throw new Error(`let through against ${expected.refusing.join()}`);
        expect(real.provider).toBe(expected.ticket.provider);
        for (const state of real.states) {
          const rule = rules.find(({ name }) => name === state.rule);
          if (rule?.by.includes("provider") !== true) {
            expect(state).toMatchObject(model.state(state.rule, request, now()));
          }
        }
        tickets.push({ real, model: expected.ticket });
        return null;
      }
      if ("ticket" in expected) throw new Error(`refused by ${real.rule}`);
      expect(expected.refusing).toContain(real.rule);
      expect([real.retryAfterMs, real.tooLarge !== null]).toEqual([expected.waitMs, expected.isTooLarge]);
      return expected.isTooLarge ? null : expected.waitMs;
    };

    for (const step of steps) {
      if ("move" in step) {
        const ticket = tickets[step.move % Math.max(1, tickets.length)];
        if (ticket === undefined) continue;
        const refusal = await ticket.real.move(step.to);
        expect(refusal?.retryAfterMs ?? null).toBe(model.move(ticket.model, step.to, now()));
        expect(ticket.real.provider).toBe(ticket.model.provider);
      } else if ("ms" in step) clock.advance(step.ms);
      else if ("settle" in step) {
        const ticket = tickets[step.settle % Math.max(1, tickets.length)];
        if (ticket === undefined) continue;
        tickets.splice(tickets.indexOf(ticket), 1);
        model.settle(ticket.model, step.use, now());
        await ticket.real.settle(step.use);
        await ticket.real.settle(step.use);
      } else {
        const waitMs = await take(step.take);
        if (waitMs !== null && step.obeys === true) {
          clock.advance(waitMs - 1);
          expect(await take(step.take)).toBe(1);
          clock.advance(1);
          expect(await take(step.take)).toBeNull();
        }
      }
      // Nothing was taken that the model doesn't know of, above all not by what was refused.
      for (const { name, buckets } of await limiter.rules()) expect(buckets).toBe(model.used(name, now()));
    }
  });
  await fc.assert(property, { numRuns: 400 });
});

it("lets through two bursts in one instant and 60 times the rate after it, at most, whatever happened before", async () => {
  const burst = 1000;
  const rule = perSecond(burst, { metric: "tokens", perMs: 60_000, burst });
  const someHistory = fc.array(
    fc.oneof(
      { weight: 5, arbitrary: fc.record({ takes: fc.integer({ min: 1, max: burst }) }) },
      { weight: 1, arbitrary: fc.record({ settles: fc.nat(50), tokens: fc.nat(100) }) },
      { weight: 4, arbitrary: fc.record({ passes: fc.oneof(fc.nat(3000), fc.nat(60_000)) }) },
    ),
    { minLength: 10, maxLength: 100 },
  );
  const property = fc.asyncProperty(someHistory, fc.array(fc.nat(3000), { maxLength: 30 }), async (history, gaps) => {
    const clock = createManualClock(1e9);
    const limiter = createMemoryRateLimiter({ rules: [rule], clock });
    const remaining = async () => (await limiter.statesOf(rateAsk({ tokens: 1 })))[0]?.remaining ?? 0;
    const held: RateTicket[] = [];
    for (const step of history) {
      if ("passes" in step) clock.advance(step.passes);
      else if ("settles" in step) {
        const [ticket] = held.splice(step.settles % Math.max(1, held.length), 1);
        await ticket?.settle({ wasSent: true, tokens: step.tokens, outputTokens: 0 });
      } else {
        const tokens = Math.min(step.takes, await remaining());
        if (tokens > 0) held.push(ticketOf(await limiter.take(rateAsk({ tokens }))));
      }
    }
    // From now on what ends is put back, and all that is there is taken and used.
    let used = 0;
    let passed = 0;
    const takeAll = async (): Promise<void> => {
      const tokens = await remaining();
      if (tokens > 0) ticketOf(await limiter.take(rateAsk({ tokens })));
      used += tokens;
      expect(used).toBeLessThanOrEqual(2 * burst + (60 * burst * passed) / 60_000);
    };
    for (const ms of [0, ...gaps]) {
      clock.advance(ms);
      passed += ms;
      await takeAll();
      const ends = ms === 0 ? Math.ceil(held.length / 2) : 1;
      for (const ticket of held.splice(0, ends)) {
        await ticket.settle(unsent);
        await takeAll();
      }
    }
  });
  await fc.assert(property, { numRuns: 300 });
});
