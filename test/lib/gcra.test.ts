import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type GcraRate, gcraRate, gcraTake, gcraWaitMs } from "../../src/limits/memory/memory-rate-limiter.ts";

/** Whether each of the requests at these times (ms) gets a token. */
function decide(rate: GcraRate, times: readonly number[]): boolean[] {
  let tat = -Infinity;
  return times.map((now) => {
    if (gcraWaitMs(rate, tat, now) > 0) return false;
    tat = gcraTake(rate, tat, now);
    return true;
  });
}

/** The textbook token bucket, in whole thousandths of a token. */
function decideNaively(perSecond: number, burst: number, times: readonly number[]): boolean[] {
  let milliTokens = burst * 1000;
  let last = times[0] ?? 0;
  return times.map((now) => {
    milliTokens = Math.min(burst * 1000, milliTokens + (now - last) * perSecond);
    last = now;
    if (milliTokens < 1000) return false;
    milliTokens -= 1000;
    return true;
  });
}

const gaps = fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 40 }), fc.integer({ max: 5000, min: 0 })));

function timesOf(gapsMs: readonly number[], start = 0): number[] {
  let now = start;
  return gapsMs.map((gap) => (now += gap));
}

describe("gcra", () => {
  test("decides exactly as a token bucket does", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(1, 2, 4, 5, 8, 10, 20, 50, 100, 125, 200, 500, 1000),
        fc.integer({ min: 1, max: 50 }),
        gaps,
        fc.integer({ min: 0, max: 1e9 }),
        (perSecond, burst, gapsMs, start) => {
          const times = timesOf(gapsMs, start);
          expect(decide(gcraRate(perSecond, burst), times)).toEqual(decideNaively(perSecond, burst, times));
        },
      ),
    );
  });

  test("a burst is let through to the last token, whatever the rate", () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0.01, max: 1e5, noNaN: true }),
        fc.integer({ min: 1, max: 300 }),
        fc.double({ min: 0, max: 1e9, noNaN: true }),
        (perSecond, burst, now) => {
          const times = new Array<number>(burst + 1).fill(now);
          expect(decide(gcraRate(perSecond, burst), times).filter(Boolean)).toHaveLength(burst);
        },
      ),
    );
  });

  test("after the wait it named there is a token, and a moment before there is none", () => {
    const rate = gcraRate(4, 2);
    let tat = gcraTake(rate, -Infinity, 1000);
    tat = gcraTake(rate, tat, 1000);
    const waitMs = gcraWaitMs(rate, tat, 1100);
    expect(waitMs).toBe(150);
    expect(gcraWaitMs(rate, tat, 1249)).toBe(1);
    expect(gcraWaitMs(rate, tat, 1250)).toBe(0);
  });

  test("a clock that jumps, back or ahead, never makes anyone wait longer than one token takes", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1000 }),
        fc.integer({ min: 1, max: 50 }),
        fc.array(fc.integer({ min: -1e9, max: 1e9 })),
        (perSecond, burst, times) => {
          const rate = gcraRate(perSecond, burst);
          let tat = -Infinity;
          for (const now of times) {
            const waitMs = gcraWaitMs(rate, tat, now);
            expect(waitMs).toBeGreaterThanOrEqual(0);
            expect(waitMs).toBeLessThanOrEqual(rate.intervalMs * 1.001);
            if (waitMs === 0) tat = gcraTake(rate, tat, now);
            expect(Number.isFinite(tat)).toBe(true);
          }
        },
      ),
    );
  });
});
