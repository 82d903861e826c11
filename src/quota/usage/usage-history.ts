import type { UsageRow } from "../ledger.ts";
import type { PeriodAt } from "../periods.ts";
import { closedAmong, UsageDay } from "./usage-day.ts";

/** A day and its bounds: these are kept, so that a change of the time zone moves nothing that has been counted. */
export interface OpenDay {
  readonly day: UsageDay;
  /** ms since the epoch; `end` is just after it. */
  start: number;
  end: number;
}

/**
 * One user's usage on the newest day, and on earlier days that a running request may still change. Older days are in
 * the archive.
 */
export class UsageHistory {
  readonly #periodAt: PeriodAt;
  /** Oldest first. */
  #days: readonly OpenDay[];

  constructor(periodAt: PeriodAt, days: readonly OpenDay[] = []) {
    this.#periodAt = periodAt;
    this.#days = days;
  }

  get days(): readonly OpenDay[] {
    return this.#days;
  }

  /** The day in which a charge made at `atMs` is counted; created if it is new. */
  dayAt(atMs: number): UsageDay {
    const known = this.#find(atMs);
    if (known !== undefined) return known.day;
    const { date, start, end } = this.#periodAt("day", atMs);
    const newest = this.#days.at(-1);
    if (newest !== undefined && date <= newest.day.date) {
      // Dates never go back: after a change of the time zone the newest day lasts longer.
      newest.start = Math.min(newest.start, start);
      newest.end = Math.max(newest.end, end ?? 0);
      return newest.day;
    }
    const day = new UsageDay(date);
    this.#days = [...this.#days, { day, start, end: end ?? Infinity }];
    return day;
  }

  /** The date of a charge, which may already be archived. */
  dateAt(atMs: number): string {
    return this.#find(atMs)?.day.date ?? this.#periodAt("day", atMs).date;
  }

  /** Copies of the rows in memory, oldest day first. */
  rows(): readonly UsageRow[] {
    return this.#days.flatMap(({ day }) => day.rows);
  }

  /** Days that may be archived: all before `today` except the newest. */
  closed(today: string): readonly UsageDay[] {
    const closed = closedAmong(
      this.#days.map(({ day }) => day),
      today,
    );
    for (const day of closed) day.state = "closing";
    return closed;
  }

  /** Forgets days that are now in the archive. */
  archived(days: readonly UsageDay[]): void {
    this.#days = this.#days.filter(({ day }) => !(days.includes(day) && day.state === "closing"));
  }

  /** At the end of recovery: unsettled requests stay unsettled, since the process that could settle them is gone. */
  forgetInFlight(): void {
    for (const { day } of this.#days) day.inFlight = 0;
  }

  /**
   * Moves the counts of days after this time, made because a clock was wrong, to the day of this time. Returns whether
   * there were any.
   * @param today that day from the archive; used if it is not open
   */
  bringBack(nowMs: number, today: UsageDay): boolean {
    const { start, end } = this.#periodAt("day", nowMs);
    const ahead = this.#days.filter(({ day }) => day.date > today.date);
    if (ahead.length === 0) return false;
    const open = this.#days.find(({ day }) => day.date === today.date);
    const target = open ?? { day: today, start, end: end ?? Infinity };
    for (const { day } of ahead) for (const row of day.rows) target.day.add(row, row.key);
    this.#days = [...this.#days.filter(({ day }) => day.date < today.date), target];
    return true;
  }

  #find(atMs: number): OpenDay | undefined {
    // Almost always the newest.
    for (let index = this.#days.length - 1; index >= 0; index--) {
      const one = this.#days[index];
      if (one !== undefined && atMs >= one.start && atMs < one.end) return one;
    }
    return undefined;
  }
}
