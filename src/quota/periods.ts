import dayjs from "dayjs";
import utc from "dayjs/plugin/utc.js";
import { createZone, type Zone } from "./zone.ts";

dayjs.extend(utc);

/** The rules for the start of periods. */
export interface PeriodRules {
  /** IANA name; periods begin at the start of a day there. */
  readonly timezone: string;
  /** 1 to 31; in shorter months the last day. */
  readonly monthlyResetDay: number;
}

/** One kind of period. */
interface PeriodRow {
  /** In a sentence after what was used: " today"; "" if it never resets. */
  readonly label: string;
  /**
   * The dates, as midnights in UTC, on which the period around `today` and the next one begin; null if it never ends.
   */
  readonly dates: ((today: dayjs.Dayjs, resetDay: number) => readonly [dayjs.Dayjs, dayjs.Dayjs]) | null;
}

/** The periods of limits: each once. The order is that of lists. Weeks begin on Monday. */
export const periods = {
  day: { label: " today", dates: (today) => [today, today.add(1, "day")] },
  week: {
    label: " this week",
    dates: (today) => {
      const monday = today.subtract((today.day() + 6) % 7, "day");
      return [monday, monday.add(7, "day")];
    },
  },
  month: {
    label: " this month",
    dates: (today, resetDay) => {
      const month = today.startOf("month");
      const reset = resetIn(month, resetDay);
      return today.isBefore(reset)
        ? [resetIn(month.subtract(1, "month"), resetDay), reset]
        : [reset, resetIn(month.add(1, "month"), resetDay)];
    },
  },
  total: { label: "", dates: null },
} as const satisfies Readonly<Record<string, PeriodRow>>;

/** The period of a limit. `total` never resets. */
export type Per = keyof typeof periods;

export const periodNames = Object.keys(periods) as [Per, ...Per[]];

/** An object with a value for each period. */
export function mapPeriods<T>(valueOf: (per: Per) => T): Record<Per, T> {
  return Object.fromEntries(periodNames.map((per) => [per, valueOf(per)])) as Record<Per, T>;
}

/** Whether a text from a file is the name of a period. */
export function isPer(text: string): text is Per {
  return Object.hasOwn(periods, text);
}

/** Whether a period never resets. */
export function isEndless(per: Per): boolean {
  return periods[per].dates === null;
}

/** From `start` to just before `end`, in ms since the epoch. `end` is null if it never ends. */
interface Period {
  /** The local date of its first day, YYYY-MM-DD; "" if it has none. */
  readonly date: string;
  readonly start: number;
  readonly end: number | null;
}

/** The period around an instant, in ms since the epoch. */
export type PeriodAt = (per: Per, nowMs: number) => Period;

/** Caches the current period, so that midnight costs one calculation instead of one per user. */
export function createPeriods(rules: PeriodRules): PeriodAt {
  const zone = createZone(rules.timezone);
  const latest = new Map<Per, Period>();
  return (per, nowMs) => {
    const known = latest.get(per);
    if (known !== undefined && nowMs >= known.start && (known.end === null || nowMs < known.end)) return known;
    const period = periodAt(periods[per], nowMs, zone, rules.monthlyResetDay);
    latest.set(per, period);
    return period;
  };
}

/** A day that the zone skips entirely belongs to the following one. */
function periodAt({ dates }: PeriodRow, nowMs: number, zone: Zone, resetDay: number): Period {
  if (dates === null) return { date: "", start: 0, end: null };
  const [first, next] = dates(dayjs.utc(zone.dateAt(nowMs)), resetDay);
  const date = first.toISOString().slice(0, 10);
  return { date, start: zone.startOf(first.valueOf()), end: zone.startOf(next.valueOf()) };
}

function resetIn(month: dayjs.Dayjs, resetDay: number): dayjs.Dayjs {
  return month.date(Math.min(resetDay, month.daysInMonth()));
}
