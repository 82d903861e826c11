import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createManualClock } from "../support/manual-clock.ts";
import { at, price, pricingOf } from "./pricing-support.ts";

const workdays = 'days = ["mon", "tue", "wed", "thu", "fri"]';
const deepseek = `[models.prices.peak]
factor = 2
timezone = "Asia/Shanghai"
windows = [{ ${workdays}, from = "09:00", to = "12:00" }, { ${workdays}, from = "14:00", to = "18:00" }]
except = [2026-10-01, 2026-10-02]`;

/** Peak time all day between two local times in a zone. */
const daily = (timezone: string, from: string, to: string) =>
  `[models.prices.peak]\nfactor = 1.5\ntimezone = "${timezone}"\nwindows = [{ from = "${from}", to = "${to}" }]`;

/** Says of an instant whether it is in peak time. */
function peakOf(lines: string): (iso: string) => boolean {
  const pricing = pricingOf(price("flash", "4", lines));
  return (iso) => pricing.priceAt("p", "flash", at(iso)).id.includes(" peak ");
}

const hourMs = 3_600_000;

describe("peak prices", () => {
  it("are the others times the factor, and say so", () => {
    const pricing = pricingOf(
      price("flash", "4", deepseek).replace("cache_hit = 0", "cache_hit = 0.02").replace("miss = 0", "miss = 1"),
    );
    const peak = pricing.priceAt("p", "flash", at("2026-11-23T10:00:00+08:00"));
    expect(peak).toMatchObject({ cacheHit: 40_000_000, cacheMiss: 2e9, output: 8e9, reasoning: 8e9 });
    expect(peak.id).toBe("flash@always peak 0.04/2/8/8");
    expect(pricing.priceAt("p", "flash", at("2026-11-23T13:00:00+08:00")).id).toBe("flash@always 0.02/1/4/4");
  });

  it("begin and end to the millisecond", () => {
    const isPeak = peakOf(deepseek);
    expect(
      [
        "08:59:59.999",
        "09:00:00.000",
        "11:59:59.999",
        "12:00:00.000",
        "13:59:59.999",
        "14:00:00.000",
        "17:59:59.999",
      ].map((time) => isPeak(`2026-11-23T${time}+08:00`)),
    ).toEqual([false, true, true, false, false, true, true]);
    expect(isPeak("2026-11-23T18:00:00.000+08:00")).toBe(false);
  });

  it("go by the weekday and the holidays of their own zone", () => {
    const isPeak = peakOf(deepseek);
    // Saturday and Sunday in Shanghai; the last is still Sunday in UTC.
    expect(isPeak("2026-11-21T10:00:00+08:00")).toBe(false);
    expect(isPeak("2026-11-22T10:00:00+08:00")).toBe(false);
    const early = peakOf(deepseek.replace('"09:00"', '"00:00"'));
    expect(early("2026-11-22T23:59:59.999+08:00")).toBe(false);
    expect(early("2026-11-23T00:00:00.000+08:00")).toBe(true);
    expect(
      ["2026-09-30", "2026-10-01", "2026-10-02", "2026-10-05"].map((day) => isPeak(`${day}T10:00:00+08:00`)),
    ).toEqual([true, false, false, true]);
  });

  it("replay a recorded day and the weekend after it, minute by minute", () => {
    const pricing = pricingOf(price("flash", "4", deepseek));
    const clock = createManualClock(at("2026-11-20T00:00:00+08:00"));
    const changes: string[] = [];
    let last = "";
    for (let minute = 0; minute < 3.5 * 24 * 60; minute++) {
      const rate = pricing.priceAt("p", "flash", clock.now()).output / 1e9;
      const line = `${rate} from ${new Date(clock.now() + 8 * hourMs).toISOString().slice(5, 16)}`;
      if (line.split(" ")[0] !== last.split(" ")[0]) {
        changes.push(line);
        last = line;
      }
      clock.advance(60_000);
    }
    expect(changes).toEqual([
      "4 from 11-20T00:00",
      "8 from 11-20T09:00",
      "4 from 11-20T12:00",
      "8 from 11-20T14:00",
      "4 from 11-20T18:00",
      "8 from 11-23T09:00",
    ]);
  });

  it("last to the end of the day with 24:00", () => {
    const isPeak = peakOf(daily("Asia/Shanghai", "22:00", "24:00"));
    expect(isPeak("2026-11-23T23:59:59.999+08:00")).toBe(true);
    expect(isPeak("2026-11-24T00:00:00.000+08:00")).toBe(false);
  });

  it("follow a clock that steps back", () => {
    const isPeak = peakOf(deepseek);
    expect(["12:00:00", "11:59:59", "12:00:01"].map((time) => isPeak(`2026-11-23T${time}+08:00`))).toEqual([
      false,
      true,
      false,
    ]);
  });

  it("end with the validity of their price", () => {
    const lines = `valid_until = 2026-11-23T10:30:00+08:00\n${deepseek}`;
    const pricing = pricingOf(price("flash", "4", lines) + price("*", "1"));
    expect(pricing.priceAt("p", "flash", at("2026-11-23T10:29:59.999+08:00")).output).toBe(8e9);
    expect(pricing.priceAt("p", "flash", at("2026-11-23T10:30:00+08:00")).output).toBe(1e9);
  });
});

describe("peak windows on the days on which clocks change", () => {
  /** Minutes of peak time in so many hours, asked minute by minute. */
  function minutesOfPeak(isPeak: (iso: string) => boolean, fromIso: string, hours: number): number {
    const start = at(fromIso);
    let minutes = 0;
    for (let i = 0; i < hours * 60; i++) if (isPeak(new Date(start + i * 60_000).toISOString())) minutes++;
    return minutes;
  }

  it("keep to the wall clock in summer and winter", () => {
    const isPeak = peakOf(daily("Europe/Berlin", "09:00", "12:00"));
    expect(isPeak("2026-03-28T08:00:00Z")).toBe(true);
    expect(isPeak("2026-03-28T07:59:59.999Z")).toBe(false);
    expect(isPeak("2026-03-30T07:00:00Z")).toBe(true);
    expect(isPeak("2026-03-30T06:59:59.999Z")).toBe(false);
    expect(isPeak("2026-10-25T08:00:00Z")).toBe(true);
    expect(isPeak("2026-10-25T07:59:59.999Z")).toBe(false);
  });

  it("never come where the clock goes forward over them", () => {
    const berlin = peakOf(daily("Europe/Berlin", "02:00", "03:00"));
    expect(minutesOfPeak(berlin, "2026-03-28T23:00:00Z", 23)).toBe(0);
    expect(minutesOfPeak(berlin, "2026-03-29T22:00:00Z", 24)).toBe(60);
    const newYork = peakOf(daily("America/New_York", "01:30", "03:30"));
    expect(minutesOfPeak(newYork, "2026-03-08T05:00:00Z", 23)).toBe(60);
    expect(newYork("2026-03-08T06:59:59.999Z")).toBe(true);
    expect(newYork("2026-03-08T07:00:00.000Z")).toBe(true);
    expect(newYork("2026-03-08T07:30:00.000Z")).toBe(false);
  });

  it("come twice where the clock goes back over them", () => {
    const berlin = peakOf(daily("Europe/Berlin", "02:00", "03:00"));
    expect(minutesOfPeak(berlin, "2026-10-24T22:00:00Z", 25)).toBe(120);
    const newYork = peakOf(daily("America/New_York", "01:30", "02:00"));
    expect(minutesOfPeak(newYork, "2026-11-01T04:00:00Z", 25)).toBe(60);
    expect(newYork("2026-11-01T05:59:59.999Z")).toBe(true);
    expect(newYork("2026-11-01T06:00:00.000Z")).toBe(false);
    expect(newYork("2026-11-01T06:30:00.000Z")).toBe(true);
  });
});

it.each(["deepseek-flash", "deepseek-v4-pro"])(
  "M12: the shipped config has no peak on holidays in China: %s",
  (model) => {
    const pricing = pricingOf(readFileSync(new URL("../../config.toml", import.meta.url), "utf8"));
    const isPeak = (day: string): boolean =>
      pricing.priceAt("deepseek", model, at(`${day}T10:00:00+08:00`)).id.includes(" peak ");
    // Each last day of a holiday, and the working day after it.
    const ends = ["2026-01-02", "2026-02-23", "2026-04-06", "2026-05-05", "2026-06-19", "2026-09-25", "2026-10-07"];
    const after = ["2026-01-05", "2026-02-24", "2026-04-07", "2026-05-06", "2026-06-22", "2026-09-28", "2026-10-08"];
    expect(ends.filter(isPeak)).toEqual([]);
    expect(after.filter(isPeak)).toEqual(after);
  },
);
