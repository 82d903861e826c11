import { parse } from "smol-toml";
import { describe, expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { grantsSchema, limitsSchema } from "../../src/config/quota-schema.ts";
import { createAllowances, type AllowanceAccount } from "../../src/quota/allowances.ts";
import { createTiers } from "../../src/quota/tiers.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { at } from "./pricing-support.ts";

const config = parseConfig(
  `[quota.tiers.basic]
   requests = 500
   limits = [
     { metric = "tokens", per = "day", max = 1000 },
     { metric = "cost", per = "month", max = 5.5 },
     { metric = "cost", per = "month", max = 1, currency = "USD" },
   ]
   [quota.tiers.open]`,
  "config.toml",
).quota;

function setUp(nowIso = "2026-11-23T10:00:00+08:00") {
  const clock = createManualClock(at(nowIso));
  const tiers = createTiers(config);
  const { currency, timezone } = config;
  const allowances = createAllowances({ tiers, currency, timezone, clock });
  const limitsOf = (user: AllowanceAccount) => allowances.limitsOf(user);
  return {
    allowances,
    clock,
    tiers,
    limitsOf,
    /** The maxima by metric, period and currency. */
    maxima: (user: AllowanceAccount) =>
      Object.fromEntries(
        limitsOf(user).map(({ metric, per, currency: unit, max }) => [
          [metric, per, unit].filter(Boolean).join(" "),
          max,
        ]),
      ),
  };
}

describe("two limits of a user that count the same, since one names the default currency", () => {
  it.each([[[3, 2]], [[2, 3]]])("hold both, in either order: %j", ([first = 0, second = 0]) => {
    const limit = 'metric = "cost", per = "month", max =';
    const limits = `limits = [{ ${limit} ${first} }, { ${limit} ${second}, currency = "CNY" }]`;
    expect(setUp().maxima(account(limits))).toMatchObject({ "cost month CNY": 2_000_000_000 });
  });
});

describe("the limits of a group", () => {
  const group = { name: "team", limits: [{ metric: "cost", per: "month", max: 2.5 } as const] };
  const ofTeam = { metric: "cost", per: "month", max: 2_500_000_000, currency: "CNY", group: "team" };
  const key = { id: "key-1", limits: [{ metric: "requests", per: "day", max: 3 } as const] };

  it("come after those of the user and of the key, in the same array while nothing changes", () => {
    const { allowances, tiers } = setUp();
    const user = account();
    const limits = allowances.limitsOf(user, key, group);
    expect(limits.slice(0, -2)).toEqual(tiers.limitsOf("basic"));
    expect(limits.slice(-2)).toEqual([{ metric: "requests", per: "day", max: 3, apiKey: "key-1" }, ofTeam]);
    expect(allowances.limitsOf(user, key, group)).toBe(limits);
    expect(allowances.limitsOf(account(), null, group)).toBe(allowances.limitsOf(user, null, group));
    expect(allowances.limitsOf(user, key, { name: "other", limits: [] })).toBe(allowances.limitsOf(user, key));
    expect(allowances.limitsOf(user, key, { ...group }).at(-1)).toEqual(ofTeam);
  });

  it("are the only ones of a service account beside its key's, but only in its default group", () => {
    const { allowances, tiers } = setUp();
    const service = { ...account(), service: true, default_group: "team" };
    expect(allowances.limitsOf(service, null, group)).toEqual([ofTeam]);
    expect(allowances.limitsOf(service, key, group)).toHaveLength(2);
    expect(allowances.limitsOf(service)).toEqual(tiers.limitsOf("basic"));
    for (const default_group of [undefined, "other"]) {
      const limits = allowances.limitsOf({ ...service, default_group }, null, group);
      expect(limits).toEqual([...(tiers.limitsOf("basic") ?? []), ofTeam]);
    }
  });
});

/** An account as its TOML file has it. */
function account(toml = "", quota_tier = "basic"): AllowanceAccount {
  const { limits, grants } = parse(toml);
  return {
    quota_tier,
    limits: limits === undefined ? undefined : limitsSchema.parse(limits),
    grants: grants === undefined ? undefined : grantsSchema.parse(grants),
  };
}

const ofTier = {
  "requests month": 500,
  "tokens day": 1000,
  "cost month CNY": 5_500_000_000,
  "cost month USD": 1_000_000_000,
};

describe("what a user may use", () => {
  it("is what the tier says, where the account says nothing", () => {
    const { maxima, limitsOf, tiers } = setUp();
    expect(maxima(account())).toEqual(ofTier);
    expect(limitsOf(account())).toBe(tiers.limitsOf("basic"));
  });

  it("is unlimited where the tier has no limits", () => {
    expect(setUp().limitsOf(account("", "open"))).toEqual([]);
  });

  it("is nothing where the tier is unknown", () => {
    expect(setUp().limitsOf(account("", "gone"))).toEqual([{ metric: "requests", per: "total", max: 0 }]);
  });

  it("is the same array while nothing changes", () => {
    const { clock, limitsOf } = setUp();
    const alice = account(`grants = [{ metric = "requests", per = "month", amount = 200, until = 2026-12-01 }]`);
    const first = limitsOf(alice);
    clock.advance(60_000);
    expect(limitsOf(alice)).toBe(first);
  });
});

describe("a user's own limits", () => {
  it("take the place of the tier's, in whole nano-units for cost", () => {
    const own = account(`limits = [
      { metric = "requests", per = "month", max = 7 },
      { metric = "cost", per = "month", max = 0.1 },
    ]`);
    expect(setUp().maxima(own)).toEqual({ ...ofTier, "requests month": 7, "cost month CNY": 100_000_000 });
  });

  it("are one more where the tier has none of the kind", () => {
    const own = account(`limits = [
      { metric = "requests", per = "day", max = 0 },
      { metric = "cost", per = "month", max = 2, currency = "EUR" },
    ]`);
    expect(setUp().maxima(own)).toEqual({ ...ofTier, "requests day": 0, "cost month EUR": 2_000_000_000 });
    expect(setUp().maxima({ ...own, quota_tier: "open" })).toEqual({
      "requests day": 0,
      "cost month EUR": 2_000_000_000,
    });
  });

  it("are read anew from an account that has been replaced", () => {
    const { maxima } = setUp();
    expect(maxima(account(`limits = [{ metric = "requests", per = "month", max = 1 }]`))["requests month"]).toBe(1);
    expect(maxima(account())["requests month"]).toBe(500);
  });
});

describe("grants", () => {
  const grant = (rest: string) => account(`grants = [{ metric = "requests", per = "month", amount = 200${rest} }]`);

  it("are added to the limit of the same kind", () => {
    const granted = account(`grants = [
      { metric = "requests", per = "month", amount = 200 },
      { metric = "requests", per = "month", amount = 30, reason = "conference" },
      { metric = "cost", per = "month", amount = 0.000000001 },
      { metric = "cost", per = "month", amount = 1, currency = "USD" },
    ]`);
    expect(setUp().maxima(granted)).toEqual({
      ...ofTier,
      "requests month": 730,
      "cost month CNY": 5_500_000_001,
      "cost month USD": 2_000_000_000,
    });
  });

  it("are added to the user's own limits", () => {
    const both = { ...grant(""), limits: account(`limits = [{ metric = "requests", per = "month", max = 7 }]`).limits };
    expect(setUp().maxima(both)["requests month"]).toBe(207);
  });

  it("limit nobody who had no limit of the kind", () => {
    expect(setUp().limitsOf({ ...grant(""), quota_tier: "open" })).toEqual([]);
    const perDay = account(`grants = [{ metric = "requests", per = "day", amount = 5 }]`);
    expect(setUp().maxima(perDay)).toEqual(ofTier);
  });

  it("end to the millisecond, a date at midnight in quota.timezone", () => {
    const { clock, maxima } = setUp("2026-11-30T23:59:59.999+08:00");
    const user = grant(", until = 2026-12-01");
    expect(maxima(user)["requests month"]).toBe(700);
    clock.advance(1);
    expect(maxima(user)["requests month"]).toBe(500);
  });

  it("end one after the other", () => {
    const { clock, maxima } = setUp();
    const user = account(`grants = [
      { metric = "requests", per = "month", amount = 100, until = 2026-11-23T04:00:00Z },
      { metric = "requests", per = "month", amount = 10, until = 2026-11-23T03:00:00Z },
      { metric = "requests", per = "month", amount = 1 },
    ]`);
    const seen = [0, 1, 1, 1].map((hours) => {
      clock.advance(hours * 3_600_000);
      return maxima(user)["requests month"];
    });
    expect(seen).toEqual([611, 601, 501, 501]);
  });

  it("come back with a clock that steps back over their end", () => {
    const { clock, maxima } = setUp("2026-12-01T00:00:00+08:00");
    const user = grant(", until = 2026-12-01");
    expect(maxima(user)["requests month"]).toBe(500);
    clock.advance(-1);
    expect(maxima(user)["requests month"]).toBe(700);
    clock.advance(1);
    expect(maxima(user)["requests month"]).toBe(500);
  });

  it("stop at the largest amount", () => {
    const user = account(`grants = [{ metric = "requests", per = "month", amount = ${Number.MAX_SAFE_INTEGER} }]`);
    expect(setUp().maxima(user)["requests month"]).toBe(Number.MAX_SAFE_INTEGER);
  });

  it("has the limits of the API key behind those of the user", () => {
    const { allowances } = setUp();
    const alice = account();
    const limits = limitsSchema.parse([{ metric: "cost", per: "day", max: 0.5 }]);
    const key = { id: "key-1", limits };
    const all = allowances.limitsOf(alice, key);
    expect(all.slice(0, -1)).toEqual(allowances.limitsOf(alice));
    expect(all.at(-1)).toEqual({ metric: "cost", per: "day", max: 500_000_000, currency: "CNY", apiKey: "key-1" });
    expect(allowances.limitsOf(alice, key)).toBe(all);
    expect(allowances.limitsOf(alice, { id: "key-2", limits: [] })).toBe(allowances.limitsOf(alice));
    expect(allowances.limitsOf(account("", "open"), key)).toEqual(all.slice(-1));
  });
});
