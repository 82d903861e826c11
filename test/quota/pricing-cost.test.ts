import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { costOf, highestCostOf, type Price } from "../../src/quota/pricing/pricing.ts";
import type { TokenUsage } from "../../src/quota/ledger.ts";

const flash: Price = {
  id: "flash",
  currency: "CNY",
  cacheHit: 20_000_000,
  cacheMiss: 1_000_000_000,
  output: 4_000_000_000,
  reasoning: 5_000_000_000,
};

/** The definition, in BigInt alone: nano-units times a million. */
function exact(price: Price, { input, cached, output, reasoning }: TokenUsage): bigint {
  return (
    BigInt(cached) * BigInt(price.cacheHit) +
    BigInt(input - cached) * BigInt(price.cacheMiss) +
    BigInt(reasoning) * BigInt(price.reasoning) +
    BigInt(output - reasoning) * BigInt(price.output)
  );
}

const rate = fc.oneof(fc.nat(1_000_000), fc.nat({ max: 20_000_000_000 }), fc.maxSafeNat());
const prices: fc.Arbitrary<Price> = fc.record({
  id: fc.constant("any"),
  currency: fc.constant("CNY"),
  cacheHit: rate,
  cacheMiss: rate,
  output: rate,
  reasoning: rate,
});
const usages: fc.Arbitrary<TokenUsage> = fc
  .record({ cached: fc.nat(2_000_000), missed: fc.nat(2_000_000), thought: fc.nat(400_000), said: fc.nat(400_000) })
  .map(({ cached, missed, thought, said }) => ({
    input: cached + missed,
    cached,
    output: thought + said,
    reasoning: thought,
  }));

describe("the cost of an answer", () => {
  it("counts each token once, at its own price", () => {
    const usage = { input: 1000, cached: 400, output: 300, reasoning: 100 };
    // 400 x 0.02 + 600 x 1 + 200 x 4 + 100 x 5 = 1908 units per million.
    expect(costOf(flash, usage)).toBe(1_908_000);
  });

  it("is nothing for nothing, and nothing where nothing is asked", () => {
    const none = { input: 0, cached: 0, output: 0, reasoning: 0 };
    expect(costOf(flash, none)).toBe(0);
    const free = { ...flash, cacheHit: 0, cacheMiss: 0, output: 0, reasoning: 0 };
    expect(costOf(free, { input: 1e9, cached: 0, output: 1e9, reasoning: 0 })).toBe(0);
  });

  it("is rounded once, half up, after the sum", () => {
    const tiny = { ...flash, cacheHit: 0, cacheMiss: 250_000, output: 250_000, reasoning: 0 };
    const one = { cached: 0, reasoning: 0 };
    expect(costOf(tiny, { ...one, input: 1, output: 0 })).toBe(0);
    expect(costOf(tiny, { ...one, input: 1, output: 1 })).toBe(1);
    expect(costOf({ ...tiny, output: 249_999 }, { ...one, input: 1, output: 1 })).toBe(0);
  });

  it("is exact where a float would be off", () => {
    const price = { ...flash, cacheMiss: 8_100_000_001 };
    const input = 1_014_499_689;
    expect(Math.round((input * price.cacheMiss) / 1e6)).toBe(8_217_447_481_915);
    expect(costOf(price, { input, cached: 0, output: 0, reasoning: 0 })).toBe(8_217_447_481_914);
    const below = { ...flash, output: 9_000_000_000_499_999 };
    expect(costOf(below, { input: 0, cached: 0, output: 1, reasoning: 0 })).toBe(9_000_000_000);
  });

  it("is the exact sum, rounded half up, for any price and usage", () => {
    fc.assert(
      fc.property(prices, usages, (price, usage) => {
        const whole = (exact(price, usage) + 500_000n) / 1_000_000n;
        const limit = BigInt(Number.MAX_SAFE_INTEGER);
        expect(BigInt(costOf(price, usage))).toBe(whole > limit ? limit : whole);
      }),
      { numRuns: 1000 },
    );
  });

  it("of n parts differs by at most n/2 nano-units from that of the whole", () => {
    fc.assert(
      fc.property(prices, fc.array(usages, { minLength: 1, maxLength: 20 }), (price, parts) => {
        const costs = parts.map((part) => BigInt(costOf(price, part)));
        fc.pre(!costs.includes(BigInt(Number.MAX_SAFE_INTEGER)));
        const sum = costs.reduce((a, b) => a + b) * 1_000_000n;
        const whole = parts.map((part) => exact(price, part)).reduce((a, b) => a + b);
        const off = sum > whole ? sum - whole : whole - sum;
        expect(off <= 500_000n * BigInt(parts.length)).toBe(true);
      }),
    );
  });

  it("never counts a part as more than its whole", () => {
    expect(costOf(flash, { input: 10, cached: 99, output: 10, reasoning: 99 })).toBe(
      costOf(flash, { input: 10, cached: 10, output: 10, reasoning: 10 }),
    );
  });

  it("stops at the largest amount instead of throwing", () => {
    const max = Number.MAX_SAFE_INTEGER;
    const price = { ...flash, cacheMiss: max, output: max };
    expect(costOf(price, { input: max, cached: 0, output: max, reasoning: 0 })).toBe(max);
  });
});

describe("the highest cost of an answer", () => {
  it("is never less than what it then costs", () => {
    fc.assert(
      fc.property(prices, usages, fc.nat(1000), (price, usage, spare) => {
        const bound = highestCostOf(price, usage.input + spare, usage.output + spare);
        expect(bound).toBeGreaterThanOrEqual(costOf(price, usage));
      }),
    );
  });

  it("is reached", () => {
    expect(highestCostOf(flash, 100, 10)).toBe(costOf(flash, { input: 100, cached: 0, output: 10, reasoning: 10 }));
  });
});
