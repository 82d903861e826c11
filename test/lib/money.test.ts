import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { addAmounts, formatNano, parseNano, parseSignedNano } from "../../src/lib/money.ts";

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

describe("parseSignedNano", () => {
  it("reads back what formatNano writes, below 0 too", () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), (nano) => {
        expect(parseSignedNano(formatNano(nano))).toBe(nano === 0 ? 0 : nano);
      }),
    );
    expect([-0.1, "-0", "-0.000000001"].map(parseSignedNano)).toEqual([-100_000_000, 0, -1]);
  });

  it.each(["--1", "-", "- 1", "-0.0000000001", "-1e9", "+1"])("refuses %j", (amount) => {
    expect(() => parseSignedNano(amount)).toThrow(RangeError);
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

describe("addAmounts", () => {
  it("stays at the largest amount instead of losing precision", () => {
    expect(addAmounts(Number.MAX_SAFE_INTEGER - 1, 5)).toBe(Number.MAX_SAFE_INTEGER);
    expect(addAmounts(2, 3)).toBe(5);
  });
});
