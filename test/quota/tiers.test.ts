import { describe, expect, it } from "vitest";
import { createTiers } from "../../src/quota/tiers.ts";

describe("tiers", () => {
  const tiers = createTiers({
    currency: "CNY",
    tiers: {
      basic: { requests: 500, limits: [] },
      rich: {
        requests: 10,
        limits: [
          { metric: "tokens", per: "day", max: 1e6 },
          { metric: "cost", per: "week", max: 0.1 },
          { metric: "cost", per: "total", max: 20, currency: "USD" },
        ],
      },
      free: { limits: [] },
    },
  });

  it("read `requests` as a limit per month", () => {
    expect(tiers.limitsOf("basic")).toEqual([{ metric: "requests", per: "month", max: 500 }]);
  });

  it("hold money in nano-units, in the default currency where none is named", () => {
    expect(tiers.limitsOf("rich")?.slice(1)).toEqual([
      { metric: "tokens", per: "day", max: 1_000_000 },
      { metric: "cost", per: "week", max: 100_000_000, currency: "CNY" },
      { metric: "cost", per: "total", max: 20_000_000_000, currency: "USD" },
    ]);
  });

  it("may be without limits, which differs from not being there", () => {
    expect(tiers.limitsOf("free")).toEqual([]);
    expect(tiers.limitsOf("toString")).toBeUndefined();
    expect(tiers.names).toEqual(["basic", "rich", "free"]);
  });

  it("give the same array each time", () => {
    expect(tiers.limitsOf("rich")).toBe(tiers.limitsOf("rich"));
  });
});
