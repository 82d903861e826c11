import { describe, expect, it } from "vitest";
import type { Clock } from "../../src/lib/clock.ts";
import type { RateLimiter, RateTicket } from "../../src/limits/rate-limiter.ts";
import type { RateRule } from "../../src/limits/rate-rules.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { perSecond, rateAsk, refusalIn, ticketOf, unsent } from "../support/rates.ts";

const slow = perSecond(1, { perMs: 10_000, burst: 1 });
const perUser = perSecond(1, { name: "user", by: ["user"] });

/** What every rate limiter does. */
export function describeRateLimiter(
  name: string,
  open: (rules: readonly RateRule[], clock: Clock) => Promise<RateLimiter>,
): void {
  const take = async (limiter: RateLimiter, user = "alice") => refusalIn(await limiter.take(rateAsk({ user })));

  describe(name, () => {
    it("lets a burst of twice the rate through, then the rate, and names rule and wait", async () => {
      const clock = createManualClock(1e9);
      const limiter = await open([perSecond(10)], clock);
      for (let i = 0; i < 20; i++) expect(await take(limiter)).toBeNull();
      expect(await take(limiter)).toEqual({ rule: "global", retryAfterMs: 100 });
      clock.advance(100);
      expect(await take(limiter)).toBeNull();
      expect(await take(limiter)).not.toBeNull();
    });

    it("lets no more through at once than one after the other", async () => {
      const limiter = await open([perSecond(10)], createManualClock());
      const all = await Promise.all(Array.from({ length: 100 }, () => take(limiter)));
      expect(all.filter((refusal) => refusal === null)).toHaveLength(20);
    });

    it("lets single requests through at a rate below one a second", async () => {
      const limiter = await open([slow], createManualClock());
      expect(await take(limiter)).toBeNull();
      expect(await take(limiter)).toEqual({ rule: "global", retryAfterMs: 10_000 });
    });

    it("has a bucket for each key of a rule", async () => {
      const limiter = await open([perUser], createManualClock());
      for (const user of ["a", "a", "b"]) expect(await take(limiter, user)).toBeNull();
      expect(await take(limiter, "a")).not.toBeNull();
      expect(await take(limiter, "b")).toBeNull();
    });

    it("takes nothing from the other rules for a request that one refuses", async () => {
      const limiter = await open([perSecond(2), perUser], createManualClock());
      await take(limiter, "a");
      await take(limiter, "a");
      for (let i = 0; i < 10; i++) expect(await take(limiter, "a")).toMatchObject({ rule: "user" });
      for (const user of ["b", "b"]) expect(await take(limiter, user)).toBeNull();
      expect(await take(limiter, "c")).toMatchObject({ rule: "global" });
    });

    it("names the longest wait of several rules that refuse", async () => {
      const limiter = await open([perUser, { ...slow, perMs: 5000 }], createManualClock());
      await take(limiter);
      expect(await take(limiter)).toEqual({ rule: "global", retryAfterMs: 5000 });
    });

    it("takes back what was not sent after all", async () => {
      const limiter = await open([perSecond(1, { perMs: 2000, burst: 1 })], createManualClock());
      const ticket = ticketOf(await limiter.take(rateAsk()));
      await ticket.settle(unsent);
      await ticket.settle(unsent);
      expect(await take(limiter)).toBeNull();
      expect(await take(limiter)).not.toBeNull();
    });

    it("moves what was taken by provider to another one if that has room, and else changes nothing", async () => {
      const each = perSecond(1, { name: "each", by: ["provider"], perMs: 10_000, burst: 1 });
      const limiter = await open([perSecond(10), each], createManualClock());
      const ask = async (...providers: readonly string[]) => limiter.take(rateAsk({ providers }));
      const ticket = ticketOf(await ask("a"));
      expect(await ticket.move("a")).toBeNull();
      expect(await ticket.move("b")).toBeNull();
      expect(ticket.provider).toBe("b");
      const other = ticketOf(await ask("a"));
      expect(await other.move("b")).toMatchObject({ rule: "each", retryAfterMs: 10_000, tooLarge: null });
      expect(other.provider).toBe("a");
      expect(refusalIn(await ask("a", "b"))).toEqual({ rule: "each", retryAfterMs: 10_000 });
      await ticket.settle({ wasSent: true, tokens: 0, outputTokens: 0 });
      await other.settle(unsent);
      expect(refusalIn(await ask("b"))).not.toBeNull();
      expect(refusalIn(await ask("a"))).toBeNull();
      const plain = ticketOf(await (await open([perSecond(1)], createManualClock())).take(rateAsk()));
      expect([plain.provider, await plain.move("b")]).toEqual([null, null]);
    });

    const minutely: RateRule = { ...perSecond(1000, { name: "tpm", metric: "tokens", perMs: 60_000 }), burst: 1000 };
    const remaining = async (limiter: RateLimiter) => (await limiter.statesOf(rateAsk({ tokens: 1 })))[0]?.remaining;

    it("lets two bursts at most through in one instant, however many requests then end without using their bound", async () => {
      const clock = createManualClock(1e9);
      const limiter = await open([minutely], clock);
      const whole = async () => limiter.take(rateAsk({ tokens: 1000 }));
      const held: RateTicket[] = [];
      for (let n = 0; n < 10; n++) {
        held.push(ticketOf(await whole()));
        clock.advance(60_000);
      }
      let bursts = 0;
      for (const ticket of held) {
        if (refusalIn(await whole()) === null) bursts++;
        await ticket.settle({ wasSent: true, tokens: 0, outputTokens: 0 });
      }
      if (refusalIn(await whole()) === null) bursts++;
      expect(bursts).toBe(2);
      expect(refusalIn(await whole())).toEqual({ rule: "tpm", retryAfterMs: 60_000 });
    });

    it("puts back whole what ends early, and what had flowed off by one burst and 59 times the rate", async () => {
      const clock = createManualClock(1e9);
      const limiter = await open([minutely], clock);
      const whole = async () => ticketOf(await limiter.take(rateAsk({ tokens: 1000 })));
      // At once, as often as anybody likes.
      for (let n = 0; n < 5; n++) await (await whole()).settle(unsent);
      const held = [await whole()];
      for (let n = 0; n < 3; n++) {
        clock.advance(60_000);
        held.push(await whole());
      }
      const [first, second, third, last] = held as [RateTicket, RateTicket, RateTicket, RateTicket];
      // Of 1000, 60 fade by 60 times the rate within 60 ms; 1 has flowed off.
      clock.advance(60);
      await last.settle({ wasSent: true, tokens: 100, outputTokens: 0 });
      expect(await remaining(limiter)).toBe(901);
      await first.settle(unsent);
      expect(await remaining(limiter)).toBe(1000);
      // What finds nothing taken is not counted as put back: 901 more may be.
      await whole();
      await second.settle({ wasSent: true, tokens: 500, outputTokens: 0 });
      expect(await remaining(limiter)).toBe(500);
      await third.settle({ wasSent: true, tokens: 500, outputTokens: 0 });
      expect(await remaining(limiter)).toBe(901);
    });

    it("lets a user disconnect for free so many times an hour", async () => {
      const clock = createManualClock();
      const limiter = await open([], clock);
      const disconnect = async (user: string) => limiter.takeFreeDisconnect({ user, requestId: "r", max: 2 });
      const all = await Promise.all(["alice", "alice", "alice", "bob"].map(disconnect));
      expect(all).toEqual([true, true, false, true]);
      clock.advance(3_600_000);
      expect(await disconnect("alice")).toBe(true);
    });
  });
}
