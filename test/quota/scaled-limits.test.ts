import { describe, expect, it } from "vitest";
import type { QuotaLimit } from "../../src/quota/ledger.ts";
import { createScaleLimits } from "../../src/quota/scaled-limits.ts";

const limit: QuotaLimit = { metric: "requests", per: "day", max: 10 };

describe("limits times a factor", () => {
  it.each([
    [10, 0.5, 5],
    [10, 0.33, 3],
    [1, 0.25, 1],
    [3, 0.25, 1],
    [0, 0.25, 0],
    [0, 2, 0],
    [1, 1.5, 1],
    [Number.MAX_SAFE_INTEGER, 2, Number.MAX_SAFE_INTEGER],
  ])("%i times %d is %i", (max, factor, scaled) => {
    expect(createScaleLimits()([{ ...limit, max }], factor)).toEqual([{ ...limit, max: scaled }]);
  });

  it("are the user's own alone", () => {
    const others = [
      { ...limit, apiKey: "k1" },
      { ...limit, group: "team" },
    ];
    expect(createScaleLimits()([limit, ...others], 0.5)).toEqual([{ ...limit, max: 5 }, ...others]);
  });

  it("are the same array for the same limits and factor", () => {
    const scale = createScaleLimits();
    const limits = [limit];
    expect(scale(limits, 1)).toBe(limits);
    expect(scale(limits, 0.5)).toBe(scale(limits, 0.5));
    expect(scale(limits, 0.25)).not.toBe(scale(limits, 0.5));
  });
});
