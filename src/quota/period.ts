import dayjs from "dayjs";
import utc from "dayjs/plugin/utc.js";
import { createZone, type Zone } from "./zone.ts";
import type { Per } from "./ledger.ts";

dayjs.extend(utc);

/** The rules for the start of periods. */
export interface PeriodRules {
  /** IANA name; periods begin at the start of a day there. */
  readonly timezone: string;
  /** 1 to 31; in shorter months the last day. */
  readonly monthlyResetDay: number;
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
    const period = periodAt(per, nowMs, zone, rules.monthlyResetDay);
    latest.set(per, period);
    return period;
  };
}

/** Weeks begin on Monday. A day that the zone skips entirely belongs to the following one. */
function periodAt(per: Per, nowMs: number, zone: Zone, resetDay: number): Period {
  if (per === "total") return { date: "", start: 0, end: null };
  const today = dayjs.utc(zone.dateAt(nowMs));
  const [first, next] = dates(per, today, resetDay);
  const date = first.toISOString().slice(0, 10);
  return { date, start: zone.startOf(first.valueOf()), end: zone.startOf(next.valueOf()) };
}

/** The dates, as midnights in UTC, on which the period around `today` and the next one begin. */
function dates(per: "day" | "week" | "month", today: dayjs.Dayjs, resetDay: number): [dayjs.Dayjs, dayjs.Dayjs] {
  switch (per) {
    case "day":
      return [today, today.add(1, "day")];
    case "week": {
      const monday = today.subtract((today.day() + 6) % 7, "day");
      return [monday, monday.add(7, "day")];
    }
    case "month": {
      const month = today.startOf("month");
      const reset = resetIn(month, resetDay);
      return today.isBefore(reset)
        ? [resetIn(month.subtract(1, "month"), resetDay), reset]
        : [reset, resetIn(month.add(1, "month"), resetDay)];
    }
  }
}

function resetIn(month: dayjs.Dayjs, resetDay: number): dayjs.Dayjs {
  return month.date(Math.min(resetDay, month.daysInMonth()));
}
