import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { createWallClock } from "../../src/lib/wall-clock.ts";

const read = (text: string) => Date.parse(`${text}Z`);
const at = (text: string) => Date.parse(text);

describe("a wall clock", () => {
  it("reads the local time to the millisecond", () => {
    const shanghai = createWallClock("Asia/Shanghai");
    expect(shanghai.readAt(at("2026-09-09T16:00:00.123Z"))).toBe(read("2026-09-10T00:00:00.123"));
    expect(createWallClock("America/New_York").readAt(at("2026-01-01T00:30:00Z"))).toBe(read("2025-12-31T19:30:00"));
  });

  it("finds the instant of a reading", () => {
    expect(createWallClock("Asia/Shanghai").instantOf(read("2026-09-10T00:00:00"))).toBe(at("2026-09-09T16:00:00Z"));
    expect(createWallClock("Asia/Kathmandu").instantOf(read("2026-09-10T00:00:00"))).toBe(at("2026-09-09T18:15:00Z"));
  });

  it("takes the first of two instants where clocks go back over a reading", () => {
    const berlin = createWallClock("Europe/Berlin");
    expect(berlin.instantOf(read("2026-10-25T02:30:00"))).toBe(at("2026-10-25T00:30:00Z"));
    expect(berlin.instantOf(read("2026-10-25T03:00:00"))).toBe(at("2026-10-25T02:00:00Z"));
  });

  it("goes on without the change where clocks go forward over a reading", () => {
    const newYork = createWallClock("America/New_York");
    expect(newYork.instantOf(read("2026-03-08T02:30:00"))).toBe(at("2026-03-08T07:30:00Z"));
    expect(createWallClock("America/Santiago").instantOf(read("2026-09-06T00:00:00"))).toBe(at("2026-09-06T04:00:00Z"));
  });

  it("reads every instant that it finds as what it was looking for, save in the hour left out", () => {
    const zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Shanghai"].map(createWallClock);
    fc.assert(
      fc.property(fc.constantFrom(...zones), fc.integer({ min: 0, max: 366 * 24 * 60 }), (zone, minutes) => {
        const reading = read("2026-01-01T00:00:00") + minutes * 60_000;
        expect([0, 30, 60]).toContain((zone.readAt(zone.instantOf(reading)) - reading) / 60_000);
      }),
    );
  });

  it("refuses an unknown zone", () => {
    expect(() => createWallClock("Asia/Atlantis")).toThrow(RangeError);
  });
});
