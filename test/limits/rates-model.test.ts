import { fc } from "../support/fast-check.ts";
import { expect, it } from "vitest";
import { createMemoryRateLimiter } from "../../src/limits/memory/memory-rate-limiter.ts";
import type { RateLimitRequest, RateTicket, RateUse } from "../../src/limits/rate-limiter.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { type ModelTicket, RateModel } from "../support/rate-model.ts";
import { someRequest, someRule, someUse } from "../support/rate-cases.ts";

type Step =
  | { readonly take: RateLimitRequest; readonly obeys: boolean }
  | { readonly move: number; readonly to: string }
  | { readonly settle: number; readonly use: RateUse }
  | { readonly moveMs: number };

const someStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ take: someRequest, obeys: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ move: fc.nat(50), to: fc.constantFrom("p", "q", "r") }) },
  { weight: 3, arbitrary: fc.record({ settle: fc.nat(50), use: someUse }) },
  { weight: 3, arbitrary: fc.record({ moveMs: fc.oneof(fc.nat(50), fc.nat(5000), fc.nat(1e7)) }) },
  { weight: 1, arbitrary: fc.record({ moveMs: fc.integer({ min: -1e7, max: -1 }) }) },
);

it("decides, waits and corrects exactly as leaky buckets in fractions do, whatever the clock does", async () => {
  const property = fc.asyncProperty(
    fc.array(someRule, { minLength: 1, maxLength: 6 }),
    fc.array(someStep, { minLength: 1, maxLength: 60 }),
    async (unnamed, steps) => {
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
        } else if ("moveMs" in step) clock.advance(step.moveMs);
        else if ("settle" in step) {
          const ticket = tickets[step.settle % Math.max(1, tickets.length)];
          if (ticket === undefined) continue;
          tickets.splice(tickets.indexOf(ticket), 1);
          model.settle(ticket.model, step.use, now());
          await ticket.real.settle(step.use);
          await ticket.real.settle(step.use);
        } else {
          const waitMs = await take(step.take);
          if (waitMs !== null && step.obeys) {
            clock.advance(waitMs - 1);
            expect(await take(step.take)).toBe(1);
            clock.advance(1);
            expect(await take(step.take)).toBeNull();
          }
        }
        // Nothing was taken that the model doesn't know of, above all not by what was refused.
        for (const { name, buckets } of await limiter.rules()) expect(buckets).toBe(model.used(name, now()));
      }
    },
  );
  await fc.assert(property, { numRuns: 400 });
});
