import { parse } from "smol-toml";
import { describe, expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { grantsSchema, limitsSchema } from "../../src/config/quota-schema.ts";
import { problemsOf } from "./support.ts";

const tier = (limits: string, rest = "") => problemsOf(`[quota.tiers.basic]\n${rest}limits = [${limits}]`);

describe("[quota]", () => {
  it("has defaults for all that is not said", () => {
    const { quota, abort, usage } = parseConfig("", "x");
    expect(quota).toMatchObject({
      max_output_tokens: 8192,
      reserve_bytes_per_token: 2,
      estimate_bytes_per_token: 4,
      cut_midstream: ["tokens", "cost"],
      currency: "CNY",
    });
    expect(abort).toEqual({ policy: "auto", drain_seconds: 5, drain_tokens: 2000, free_disconnects_per_hour: 10 });
    expect(usage).toEqual({ keep_days: 90 });
  });

  it.each([
    ["max_output_tokens", "0"],
    ["max_output_tokens", "1000000000000"],
    ["reserve_bytes_per_token", "0"],
    ["estimate_bytes_per_token", "-4"],
    ["cut_midstream", '["requests"]'],
    ["currency", '"XXL"'],
    ["timezone", '"Asia/Peking"'],
    ["monthly_reset_day", "32"],
  ])("refuses %s = %s", (key, value) => {
    const [problem, ...others] = problemsOf(`[quota]\n${key} = ${value}`);
    expect(others).toEqual([]);
    expect(problem?.startsWith(`quota.${key}`)).toBe(true);
  });

  it("refuses a tier's name that could be no file or label", () => {
    expect(problemsOf("[quota.tiers.Basic]")).toEqual([
      "quota.tiers.Basic: expected another key: lower-case letters, digits, - and _, got a table",
    ]);
  });
});

describe("the limits of a tier", () => {
  it("may be any number of different ones", () => {
    expect(
      tier(
        '{metric="requests",per="day",max=50},{metric="tokens",per="month",max=1e6},{metric="cost",per="month",max=5.5},{metric="cost",per="month",max=1,currency="USD"}',
        "requests = 500\n",
      ),
    ).toEqual([]);
  });

  it.each([
    ['{metric="requests",per="day",max=-1}', "0.max: expected at least 0, got number -1"],
    ['{metric="requests",per="day",max=1.5}', "0.max: expected a whole number of requests, got number 1.5"],
    ['{metric="tokens",per="day",max=nan}', "0.max: expected a number, got nan"],
    ['{metric="cost",per="day",max=1e-10}', "0.max: expected at most 9 decimal places, got number 1e-10"],
    ['{metric="cost",per="day",max=10000000}', "0.max: expected at most 9007199, got number 10000000"],
    [
      '{metric="tokens",per="day",max=1,currency="CNY"}',
      '0.currency: expected no currency, which only metric = "cost" has',
    ],
    ['{metric="cost",per="day",max=1,currency="BTC"}', "0.currency: expected a currency code of ISO 4217 such as CNY"],
    ['{metric="money",per="day",max=1}', '0.metric: expected one of "requests", "tokens", "cost"'],
    ['{metric="cost",per="hour",max=1}', '0.per: expected one of "day", "week", "month", "total"'],
    ['{metric="cost",per="day"}', "0.max: expected a number, got nothing"],
  ])("are refused as %s", (limits, message) => {
    const [problem, ...others] = tier(limits);
    expect(others).toEqual([]);
    expect(problem).toContain(`quota.tiers.basic.limits.${message}`);
  });

  it("may not come twice, the short form and the default currency included", () => {
    const requests = '{metric="requests",per="month",max=1}';
    const cost = '{metric="cost",per="day",max=1}';
    const cny = '{metric="cost",per="day",max=1,currency="CNY"}';
    expect(tier(requests, "requests = 5\n")).toEqual([
      "quota.tiers.basic.limits.0: expected one limit of requests per month, got a table",
    ]);
    expect(tier(`${requests},${cost},${cny}`)).toEqual([
      "quota.tiers.basic.limits.2: expected one limit of cost per day, got a table",
    ]);
    expect(tier(`${requests},${requests},${requests}`)).toHaveLength(2);
  });
});

describe("limits and grants of one user", () => {
  const limits = (toml: string) => limitsSchema.safeParse(parse(`x = [${toml}]`).x);
  const grants = (toml: string) => grantsSchema.safeParse(parse(`x = [${toml}]`).x);

  it("are taken as they stand", () => {
    expect(limits('{metric="cost",per="day",max=0.5,currency="USD"}').data).toEqual([
      { metric: "cost", per: "day", max: 0.5, currency: "USD" },
    ]);
    expect(
      grants('{metric="requests",per="month",amount=200,until=2026-12-01,reason="a \\"good\\" month"}').success,
    ).toBe(true);
  });

  it("refuse two limits for the same thing", () => {
    const limit = '{metric="tokens",per="day",max=1}';
    expect(limits(`${limit},${limit}`).error?.issues[0]?.path).toEqual([1]);
  });

  it.each([
    ['{metric="requests",per="month",amount=-1}', [0, "amount"]],
    ['{metric="requests",per="month",amount=0.5}', [0, "amount"]],
    ['{metric="cost",per="month",amount=1e-10}', [0, "amount"]],
    ['{metric="cost",per="month",amount=1,currency="yuan"}', [0, "currency"]],
    ['{metric="requests",per="month",amount=1,until="2026-12-01"}', [0, "until"]],
    ['{metric="requests",per="month",amount=1,until=09:00:00}', [0, "until"]],
    ['{metric="requests",per="month",max=1,amount=1}', [0]],
  ])("refuse the grant %s", (toml, path) => {
    expect(grants(toml).error?.issues.map((issue) => issue.path)).toEqual([path]);
  });
});
