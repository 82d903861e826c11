import type { Config } from "../../config/schema.ts";
import { createWallClock } from "../../lib/wall-clock.ts";

type PeakConfig = NonNullable<Config["models"]["prices"][number]["peak"]>;

const minuteMs = 60_000;
const dayMs = 86_400_000;

/** In the order of Date.getUTCDay(). */
const weekdays = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] as const;

/**
 * Makes the test of whether an instant, in ms since the epoch, is in peak time. The wall clock decides, as it does for
 * whoever wrote the windows: an hour that a change of clocks repeats counts both times, one that it leaves out never
 * comes. Windows begin and end on whole minutes and so do changes of clocks, so one answer holds for a whole minute,
 * and the boundaries are exact to the millisecond.
 */
export function createPeakTest({ timezone, windows, except }: PeakConfig): (atMs: number) => boolean {
  const clock = createWallClock(timezone);
  const holidays = new Set(except.map((date) => date.getTime()));
  const spansOfDay = weekdays.map((weekday) =>
    windows
      .filter(({ days }) => days.includes(weekday))
      .map(({ from, to }) => ({ from: msOfDay(from), to: msOfDay(to) })),
  );

  function judge(reading: number): boolean {
    const time = reading % dayMs;
    const date = reading - time;
    if (holidays.has(date)) return false;
    const spans = spansOfDay[new Date(date).getUTCDay()] ?? [];
    return spans.some(({ from, to }) => time >= from && time < to);
  }

  let minute = NaN;
  let isPeak = false;
  return (atMs) => {
    const minuteOfAt = Math.floor(atMs / minuteMs);
    if (minuteOfAt !== minute) {
      isPeak = judge(clock.readAt(minuteOfAt * minuteMs));
      minute = minuteOfAt;
    }
    return isPeak;
  };
}

/** "09:30" as ms since midnight. */
function msOfDay(time: string): number {
  return (Number(time.slice(0, 2)) * 60 + Number(time.slice(3))) * minuteMs;
}
