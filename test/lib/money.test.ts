import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { addAmounts, costOf, formatNano, parseNano } from "../../src/lib/money.ts";

describe("parseNano", () => {
  it.each([
    [0, 0],
    [0.1, 100_000_000],
    [0.3, 300_000_000],
    [1e-9, 1],
    [1.5e-7, 150],
    [1e3, 1_000_000_000_000],
    ["12.345678901", 12_345_678_901],
    ["9007199.254740991", Number.MAX_SAFE_INTEGER],
    ["1.000000000000", 1_000_000_000],
  ])("reads %s as %i nano-units", (amount, nano) => {
    expect(parseNano(amount)).toBe(nano);
  });

  it.each([-1, NaN, Infinity, "", ".5", "1,5", "0x10", "1e-10", 0.0000000001, "9007199.254740992", 1e300, "1e999"])(
    "refuses %s",
    (amount) => {
      expect(() => parseNano(amount)).toThrow(RangeError);
    },
  );

  it("reads back what formatNano writes", () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (nano) => {
        expect(parseNano(formatNano(nano))).toBe(nano);
      }),
    );
  });
});

describe("formatNano", () => {
  it("writes decimals without an exponent or needless zeros", () => {
    expect([0, 1, 1_500_000_000, -20_000_000_000].map(formatNano)).toEqual(["0", "0.000000001", "1.5", "-20"]);
  });

  it("refuses what is no whole number of nano-units", () => {
    expect(() => formatNano(0.5)).toThrow(RangeError);
  });
});

describe("costOf", () => {
  it("rounds the sum half up, and only the sum", () => {
    expect(costOf([{ tokens: 1, nanoPerMillion: 499_999 }])).toBe(0);
    expect(costOf([{ tokens: 1, nanoPerMillion: 500_000 }])).toBe(1);
    const third = { tokens: 1, nanoPerMillion: 333_333 };
    expect(costOf([third, third])).toBe(1);
    expect(costOf([])).toBe(0);
  });

  it("is exact where a float would not be", () => {
    const tokens = 1_014_499_689;
    const nanoPerMillion = 8_100_000_001;
    expect(Math.round((tokens * nanoPerMillion) / 1e6)).toBe(8_217_447_481_915);
    expect(costOf([{ tokens, nanoPerMillion }])).toBe(8_217_447_481_914);
  });

  it("does not depend on how the tokens are split up", () => {
    fc.assert(
      fc.property(fc.nat(1e9), fc.nat(1e9), fc.nat(1e11), (a, b, nanoPerMillion) => {
        const parts = [
          { tokens: a, nanoPerMillion },
          { tokens: b, nanoPerMillion },
        ];
        expect(costOf(parts)).toBe(costOf([{ tokens: a + b, nanoPerMillion }]));
      }),
    );
  });

  it.each([
    [-1, 1],
    [1.5, 1],
    [1, NaN],
    [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  ])("refuses %d tokens at %d", (tokens, nanoPerMillion) => {
    expect(() => costOf([{ tokens, nanoPerMillion }])).toThrow(RangeError);
  });
});

describe("addAmounts", () => {
  it("stays at the largest amount instead of losing precision", () => {
    expect(addAmounts(Number.MAX_SAFE_INTEGER - 1, 5)).toBe(Number.MAX_SAFE_INTEGER);
    expect(addAmounts(2, 3)).toBe(5);
  });
});
