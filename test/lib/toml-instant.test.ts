import { parse } from "smol-toml";
import { expect, it } from "vitest";
import { createWallClock, instantOfToml } from "../../src/lib/wall-clock.ts";

const shanghai = createWallClock("Asia/Shanghai");

it.each([
  ["2026-09-10", "2026-09-09T16:00:00.000Z"],
  ["2026-09-10T09:30:00", "2026-09-10T01:30:00.000Z"],
  ["2026-09-10T09:30:00.5Z", "2026-09-10T09:30:00.500Z"],
  ["2026-09-10T09:30:00-05:00", "2026-09-10T14:30:00.000Z"],
])("reads %s as %s where the clock is Shanghai's", (text, instant) => {
  const date = parse(`at = ${text}`).at as Date;
  expect(new Date(instantOfToml(date, shanghai)).toISOString()).toBe(instant);
});

it("takes a date that is not from TOML as the instant that it is", () => {
  expect(instantOfToml(new Date(1_700_000_000_000), shanghai)).toBe(1_700_000_000_000);
});
