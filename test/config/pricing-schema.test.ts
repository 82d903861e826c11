import { describe, expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { problemsOf } from "./support.ts";

/** A [[models.prices]] that is fine, with some of its lines replaced or added. */
function price(changes: Readonly<Record<string, string>> = {}): string {
  const lines = {
    models: '["deepseek-flash"]',
    currency: '"CNY"',
    cache_hit: "0.02",
    cache_miss: "1",
    output: "4",
    ...changes,
  };
  const body = Object.entries(lines).map(([key, value]) => `${key} = ${value}`);
  return `[[models.prices]]\n${body.join("\n")}\n`;
}

const window = (from: string, to: string, days = '["mon"]') => `{ days = ${days}, from = "${from}", to = "${to}" }`;
const peak = (windows: string, rest = "") =>
  price({ peak: `{ factor = 2, timezone = "Asia/Shanghai", windows = [${windows}]${rest} }` });

describe("[[models.prices]]", () => {
  it("takes dates with and without a time, peak windows and holidays", () => {
    const toml =
      price({ valid_until: "2026-09-10" }) +
      price({ valid_from: "2026-09-09T16:00:00Z", reasoning: "5", provider: '"deepseek"' }) +
      peak(`${window("09:00", "12:00")}, ${window("14:00", "24:00")}`, ", except = [2026-10-01, 2026-10-02]").replace(
        "deepseek-flash",
        "deepseek-v4-pro",
      );
    expect(problemsOf(toml)).toEqual([]);
    expect(parseConfig(toml, "x").models.prices).toHaveLength(3);
  });

  it.each([
    ["cache_hit", "-0.1", "expected at least 0, got number -0.1"],
    ["cache_miss", "0.0000000001", "expected at most 9 decimal places, got number 1e-10"],
    ["output", "0.1234567891", "expected at most 9 decimal places, got number 0.1234567891"],
    ["output", "nan", "expected a number, got nan"],
    ["reasoning", "inf", "expected a number, got number Infinity"],
    ["output", "1000001", "expected at most 1000000, got number 1000001"],
    ["output", "1e300", "expected at most 1000000, got number 1e+300"],
    ["output", '"4"', 'expected a number, got text "4"'],
    ["currency", '"RMB"', 'expected a currency code of ISO 4217 such as CNY, got text "RMB"'],
    ["currency", '"cny"', 'expected a currency code of ISO 4217 such as CNY, got text "cny"'],
    ["models", "[]", "expected at least 1 entries, got a list of 0"],
    ["valid_from", "09:00:00", "expected a date such as 2026-09-10 or 2026-09-10T00:00:00+08:00, got the date 09:00"],
    ["valid_from", '"2026-09-10"', 'expected a date, got text "2026-09-10"'],
  ])("refuses %s = %s", (key, value, message) => {
    const [problem, ...others] = problemsOf(price({ [key]: value }));
    expect(others).toEqual([]);
    expect(problem).toContain(`models.prices.0.${key}: ${message}`);
  });

  it("refuses quotes and blanks in a glob, which becomes part of records", () => {
    const problems = problemsOf(price({ models: `["a'b", "a b", "a\\"b", "a\\nb", "a\\\\b", "fine"]` }));
    expect(problems.map((problem) => problem.split(":")[0])).toEqual(
      [0, 1, 2, 3, 4].map((i) => `models.prices.0.models.${i}`),
    );
  });

  it("names a mistyped key and the one that was meant", () => {
    expect(problemsOf(price({ cache_mis: "1" }))).toEqual([
      'models.prices.0.cache_mis: unknown key; did you mean "cache_miss"?',
    ]);
  });
});

describe("the dates of prices", () => {
  it("may follow each other without a gap", () => {
    const toml =
      price({ valid_until: "2026-03-01" }) +
      price({ valid_from: "2026-03-01", valid_until: "2026-09-10" }) +
      price({ valid_from: "2026-09-09T16:00:00Z" });
    expect(problemsOf(toml)).toEqual([]);
  });

  it("may not overlap for the same model, and the later entry is named", () => {
    const toml = price({ valid_until: "2026-09-10" }) + price({ valid_from: "2026-09-09T15:59:59.999Z" });
    expect(problemsOf(toml)).toEqual([
      'models.prices.1: expected other dates than models.prices.0 has, which also prices "deepseek-flash", got a table',
    ]);
  });

  it("overlap where neither entry has any", () => {
    expect(problemsOf(price() + price({ models: '["x", "deepseek-flash"]' }))).toHaveLength(1);
  });

  it("are compared in quota.timezone", () => {
    const entries = price({ valid_until: "2026-09-10" }) + price({ valid_from: "2026-09-09T16:00:00Z" });
    expect(problemsOf(entries)).toEqual([]);
    expect(problemsOf(`[quota]\ntimezone = "UTC"\n${entries}`)).toHaveLength(1);
  });

  it("don't matter between different providers or globs", () => {
    const two = '[[providers]]\nname = "a"\nkind = "openai"\nmodels = ["*"]\n'.repeat(2).replace('"a"', '"b"');
    expect(
      problemsOf(two + price() + price({ provider: '"a"' }) + price({ provider: '"b"' }) + price({ models: '["*"]' })),
    ).toEqual([]);
  });

  it("may not end before they begin", () => {
    expect(problemsOf(price({ valid_from: "2026-09-10", valid_until: "2026-09-10" }))).toEqual([
      "models.prices.0.valid_until: expected a time after valid_from, got the date 2026-09-10",
    ]);
  });

  it("are not compared in an unknown timezone, which is refused itself", () => {
    expect(problemsOf(`[quota]\ntimezone = "Asia/Atlantis"\n${price()}${price()}`)).toEqual([
      'quota.timezone: expected an IANA time zone such as Asia/Shanghai, got text "Asia/Atlantis"',
    ]);
  });
});

describe("the provider of a price", () => {
  it("must be one of the config, for else the price would never apply", () => {
    const provider = '[[providers]]\nname = "deepseek"\nkind = "deepseek"\nmodels = ["*"]\n';
    expect(problemsOf(provider + price({ provider: '"deepsek"' }))).toEqual([
      'models.prices.0.provider: expected the name of a provider: deepseek, got text "deepsek"',
    ]);
    expect(problemsOf(provider + price({ provider: '"simulator"' }))).toEqual([]);
  });
});

describe("peak windows", () => {
  it.each([
    [window("12:00", "09:00"), "windows.0.to: expected a time after `from`"],
    [window("09:00", "09:00"), "windows.0.to: expected a time after `from`"],
    [window("22:00", "02:00"), "windows.0.to: expected a time after `from`; write two windows for one over midnight"],
    [window("09.00", "12:00"), "windows.0.from: expected a time of the day such as 09:00"],
    [window("09:00", "25:00"), "windows.0.to: expected a time of the day such as 09:00"],
    [window("09:00", "12:60"), "windows.0.to: expected a time of the day such as 09:00"],
    [window("09:00", "12:00", '["monday"]'), 'windows.0.days.0: expected one of "mon", "tue"'],
    [`${window("09:00", "12:00")}, ${window("11:59", "13:00")}`, "windows.1: expected windows that don't overlap"],
    ["", "windows: expected at least 1 entries"],
  ])("refuses %s", (windows, message) => {
    const [problem, ...others] = problemsOf(peak(windows));
    expect(others).toEqual([]);
    expect(problem).toContain(`models.prices.0.peak.${message}`);
  });

  it("may touch, and overlap on different days", () => {
    const windows = [window("09:00", "12:00"), window("12:00", "24:00"), window("00:00", "24:00", '["sat", "sun"]')];
    expect(problemsOf(peak(windows.join(", ")))).toEqual([]);
  });

  it("refuses an unknown timezone and what is no holiday", () => {
    const toml = price({
      peak: `{ factor = 2, timezone = "Mars/Base", windows = [${window("09:00", "12:00")}], except = [2026-10-01, 2026-10-02T00:00:00Z] }`,
    });
    expect(problemsOf(toml).map((problem) => problem.split(",")[0])).toEqual([
      "models.prices.0.peak.timezone: expected an IANA time zone such as Asia/Shanghai",
      "models.prices.0.peak.except.1: expected a date without a time",
    ]);
  });

  it.each([
    ["0.02", "0.000000001"],
    ["0.000000001", "1.5"],
    ["1000000", "2"],
  ])("refuses a price of %s with a factor of %s, which does not come out even or in bounds", (amount, factor) => {
    const toml = price({
      cache_hit: amount,
      peak: `{ factor = ${factor}, timezone = "UTC", windows = [${window("09:00", "12:00")}] }`,
    });
    expect(problemsOf(toml)).toEqual([
      expect.stringMatching(/^models\.prices\.0\.peak\.factor: expected a factor that/),
    ]);
  });
});

describe("[models] weights", () => {
  it.each(["0", "1.5", "-1", "1001", '"2"'])("refuses a weight of %s", (weight) => {
    const [problem] = problemsOf(`[models]\nweights = { "deepseek-v4-pro" = ${weight} }`);
    expect(problem).toMatch(/^models\.weights\.deepseek-v4-pro: expected /);
  });

  it("takes globs", () => {
    expect(problemsOf('[models]\nweights = { "*-pro" = 2, "glm-4.6" = 1000 }')).toEqual([]);
  });
});
