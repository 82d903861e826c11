import { expect, it } from "vitest";
import { scaleNano } from "../../src/lib/money.ts";

it("multiplies by a decimal without going through a float", () => {
  expect(scaleNano(20_000_000, 2)).toBe(40_000_000);
  expect(scaleNano(300_000_000, 0.1)).toBe(30_000_000);
  expect(scaleNano(1_000_000_000_000_001, 3)).toBe(3_000_000_000_000_003);
  expect(scaleNano(5, 0)).toBe(0);
});

it("says where the product is not a whole number of nano-units", () => {
  expect(scaleNano(1, 0.5)).toBeUndefined();
  expect(scaleNano(Number.MAX_SAFE_INTEGER, 2)).toBeUndefined();
});

it("refuses what is no factor", () => {
  expect(() => scaleNano(1, -1)).toThrow(RangeError);
});
