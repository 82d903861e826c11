import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { createPeriods, type Per } from "../../src/quota/periods.ts";

function period(per: Per, at: string, timezone = "Asia/Shanghai", monthlyResetDay = 1): (string | null)[] {
  const { start, end } = createPeriods({ timezone, monthlyResetDay })(per, Date.parse(at));
  return [new Date(start).toISOString(), end === null ? null : new Date(end).toISOString()];
}

describe("periods", () => {
  it("begin at local midnight, not at midnight in UTC", () => {
    expect(period("day", "2026-11-22T15:59:59.999Z")).toEqual(["2026-11-21T16:00:00.000Z", "2026-11-22T16:00:00.000Z"]);
    expect(period("day", "2026-11-22T16:00:00Z")).toEqual(["2026-11-22T16:00:00.000Z", "2026-11-23T16:00:00.000Z"]);
  });

  it("of a week begin on Monday", () => {
    const week = ["2026-11-15T16:00:00.000Z", "2026-11-22T16:00:00.000Z"];
    expect(period("week", "2026-11-15T16:00:00Z")).toEqual(week);
    expect(period("week", "2026-11-22T15:59:59Z")).toEqual(week);
  });

  it("of a month go from December to January", () => {
    expect(period("month", "2026-12-31T15:59:59Z")).toEqual(["2026-11-30T16:00:00.000Z", "2026-12-31T16:00:00.000Z"]);
    expect(period("month", "2026-12-31T16:00:00Z")).toEqual(["2026-12-31T16:00:00.000Z", "2027-01-31T16:00:00.000Z"]);
    expect(period("month", "2027-01-10T00:00:00Z", "UTC", 15)).toEqual([
      "2026-12-15T00:00:00.000Z",
      "2027-01-15T00:00:00.000Z",
    ]);
  });

  it.each([
    ["2026-02-10", 31, "2026-01-31", "2026-02-28"],
    ["2026-02-28", 31, "2026-02-28", "2026-03-31"],
    ["2028-02-28", 31, "2028-01-31", "2028-02-29"],
    ["2028-02-29", 30, "2028-02-29", "2028-03-30"],
    ["2026-04-30", 31, "2026-04-30", "2026-05-31"],
    ["2026-05-30", 31, "2026-04-30", "2026-05-31"],
    ["2026-03-29", 29, "2026-03-29", "2026-04-29"],
    ["2026-02-28", 29, "2026-02-28", "2026-03-29"],
  ])("on %s with reset day %i last from %s to %s", (at, day, start, end) => {
    expect(period("month", `${at}T12:00:00Z`, "UTC", day)).toEqual([`${start}T00:00:00.000Z`, `${end}T00:00:00.000Z`]);
  });

  it("may begin at 01:00 where clocks skip midnight", () => {
    expect(period("day", "2018-11-04T12:00:00Z", "America/Sao_Paulo")).toEqual([
      "2018-11-04T03:00:00.000Z",
      "2018-11-05T02:00:00.000Z",
    ]);
  });

  it("begin once where clocks go back over midnight", () => {
    expect(period("day", "2018-02-17T12:00:00Z", "America/Sao_Paulo")).toEqual([
      "2018-02-17T02:00:00.000Z",
      "2018-02-18T03:00:00.000Z",
    ]);
  });

  it("skip a day that a zone left out", () => {
    expect(period("day", "2011-12-30T09:00:00Z", "Pacific/Apia")[1]).toBe("2011-12-30T10:00:00.000Z");
    expect(period("day", "2011-12-30T10:00:00Z", "Pacific/Apia")).toEqual([
      "2011-12-30T10:00:00.000Z",
      "2011-12-31T10:00:00.000Z",
    ]);
  });

  it("in total never end", () => {
    expect(period("total", "2026-11-22T00:00:00Z")).toEqual(["1970-01-01T00:00:00.000Z", null]);
  });

  it("refuse an unknown zone", () => {
    expect(() => createPeriods({ timezone: "Mars/Olympus", monthlyResetDay: 1 })).toThrow(RangeError);
  });

  const zones = [
    "UTC",
    "Asia/Shanghai",
    "America/New_York",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Havana",
    "Asia/Tehran",
  ];
  const instants = fc.integer({ min: Date.UTC(2005, 0, 1), max: Date.UTC(2040, 0, 1) });

  it("hold the instant they are asked for, and meet without a gap, in any zone", () => {
    const arbitrary = fc.tuple(fc.constantFrom(...zones), fc.integer({ min: 1, max: 31 }), instants);
    fc.assert(
      fc.property(arbitrary, fc.constantFrom("day", "week", "month"), ([timezone, monthlyResetDay, at], per) => {
        const periodAt = createPeriods({ timezone, monthlyResetDay });
        const { date, start, end } = periodAt(per, at);
        expect(end).not.toBeNull();
        const stop = end ?? 0;
        expect(start).toBeLessThanOrEqual(at);
        expect(stop).toBeGreaterThan(at);
        expect(periodAt(per, stop).start).toBe(stop);
        expect(periodAt(per, start - 1).end).toBe(start);
        expect(createPeriods({ timezone, monthlyResetDay })(per, stop - 1)).toEqual({ date, start, end });
      }),
      { numRuns: 600 },
    );
  });

  it("change exactly where the calendar of Intl changes the date", () => {
    fc.assert(
      fc.property(fc.constantFrom(...zones), instants, (timezone, at) => {
        const dateOf = new Intl.DateTimeFormat("en-CA", { timeZone: timezone, dateStyle: "short" });
        const { start, end } = createPeriods({ timezone, monthlyResetDay: 1 })("day", at);
        const last = (end ?? 0) - 1;
        const today = dateOf.format(at);
        expect([dateOf.format(start), dateOf.format(last)]).toEqual([today, today]);
        expect(dateOf.format(last + 1) > today).toBe(true);
        expect(dateOf.format(start - 1) < today).toBe(true);
      }),
      { numRuns: 600 },
    );
  });
});
