import { describe, expect, it } from "vitest";
import { daysBetween, shiftDate } from "../../src/lib/dates.ts";

describe("dates", () => {
  it("go over the ends of months, years and leap years", () => {
    expect(shiftDate("2026-12-31", 1)).toBe("2027-01-01");
    expect(shiftDate("2028-03-01", -1)).toBe("2028-02-29");
    expect(shiftDate("2026-03-01", -1)).toBe("2026-02-28");
    expect(daysBetween("2028-02-28", "2028-03-01")).toBe(2);
    expect(daysBetween("2026-11-22", "2026-11-22")).toBe(0);
  });

  it("stay within the years that are written with four digits", () => {
    expect([shiftDate("0000-01-05", -29), shiftDate("9999-12-30", 5)]).toEqual(["0000-01-01", "9999-12-31"]);
  });
});
