import { z } from "zod";
import { createWallClock } from "../lib/wall-clock.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

/** The calendar of a time zone. A date is represented by its midnight in UTC, in ms. */
export interface Zone {
  /** The local date at an instant. */
  dateAt(instantMs: number): number;
  /** The first instant whose local date is `date` or later. */
  startOf(date: number): number;
}

/**
 * Uses only Intl. dayjs's timezone plugin uses the machine's own zone, so it is an hour off when that changes its
 * clocks, and it does not know that a day may begin at 01:00, or twice. Throws RangeError for an unknown zone.
 */
export function createZone(timezone: string): Zone {
  const clock = createWallClock(timezone);

  function dateAt(instantMs: number): number {
    return Math.floor(clock.readAt(instantMs) / dayMs) * dayMs;
  }

  return {
    dateAt,
    startOf(date) {
      // Midnight by the offset before and after any clock change nearby: one of the two is the start, unless clocks go
      // back over midnight more than once a day, which has never happened.
      const candidates = [date - 36 * hourMs, date + 36 * hourMs]
        .map((near) => date - (clock.readAt(near) - near))
        .sort((a, b) => a - b);
      const begins = candidates.find((at) => dateAt(at) >= date && dateAt(at - 1) < date);
      return begins ?? searchStart(dateAt, date);
    },
  };
}

/** If no candidate fits: a binary search for the start of the date. */
function searchStart(dateAt: (instantMs: number) => number, date: number): number {
  let before = date - 2 * dayMs;
  let after = date + 2 * dayMs;
  while (after - before > 1) {
    const middle = Math.floor((before + after) / 2);
    if (dateAt(middle) < date) before = middle;
    else after = middle;
  }
  return after;
}

/** A day or an instant, as people ask for it. */
export const momentSchema = z.union([z.iso.date(), z.iso.datetime({ offset: true })], {
  error: "expected a date such as 2026-11-26, or a time such as 2026-11-26T09:00:00Z",
});

/** Days or instants, each perhaps absent. */
interface Moments {
  readonly from?: string | undefined;
  readonly to?: string | undefined;
}

/**
 * The instants from the beginning of `from` to just before the end of `to`, in ms since the epoch. A date (YYYY-MM-DD) is
 * a whole day in the zone; an ISO time with its offset is an instant, at which the span ends, exclusive.
 */
export function spanOfMoments({ from, to }: Moments, zone: Zone) {
  const isDate = (moment: string): boolean => moment.length === 10;
  return {
    from: from === undefined ? undefined : isDate(from) ? zone.startOf(Date.parse(from)) : Date.parse(from),
    to: to === undefined ? undefined : isDate(to) ? zone.startOf(Date.parse(to) + dayMs) : Date.parse(to),
  };
}
