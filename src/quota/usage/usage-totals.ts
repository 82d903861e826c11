import type { LedgerRecord } from "../memory/charge-record.ts";
import type { UsageRow, UsageSpan } from "../ledger.ts";
import { closedAmong, UsageDay } from "./usage-history.ts";

/** The name of the totals' files. No user's name begins with _. */
export const totalsName = "_totals";

/** The usage of all users together, by day and model: all kept days, so that no user's file has to be read for it. */
export class UsageTotals {
  readonly name = totalsName;
  readonly #days = new Map<string, UsageDay>();
  readonly #keepDays: number;

  constructor(keepDays: number, days: readonly UsageDay[] = []) {
    this.#keepDays = keepDays;
    for (const day of days) this.#days.set(day.date, day);
  }

  /** Oldest first. */
  get days(): readonly UsageDay[] {
    return [...this.#days.values()].sort((a, b) => (a.date < b.date ? -1 : 1));
  }

  /** Counts a record of the journal. `date` is its day in the user's history. */
  count(date: string, record: LedgerRecord): void {
    this.#day(date).count(record, false);
  }

  /** Adds a user's usage. */
  add(row: UsageRow): void {
    this.#day(row.day).add(row);
  }

  rows({ from, to }: UsageSpan): readonly UsageRow[] {
    return this.days.filter(({ date }) => date >= from && date <= to).flatMap(({ rows }) => rows);
  }

  /** Days before `today` whose current state the archive does not have. */
  closed(today: string): readonly UsageDay[] {
    const closed = closedAmong(this.days, today);
    for (const day of closed) day.state = "closing";
    return closed;
  }

  /**
   * Records which days the archive has now, and forgets those that are too old. A day that has changed meanwhile is
   * written again.
   */
  archived(days: readonly UsageDay[]): void {
    for (const day of days) if (day.state === "closing") day.state = "archived";
    // By their number and not by their dates, some of which may come from a wrong clock.
    for (const { date, state } of this.days.slice(0, -1 - this.#keepDays)) {
      if (state === "archived") this.#days.delete(date);
    }
  }

  /** As UsageHistory.forgetInFlight. */
  forgetInFlight(): void {
    for (const day of this.#days.values()) day.inFlight = 0;
  }

  #day(date: string): UsageDay {
    let day = this.#days.get(date);
    if (day === undefined) this.#days.set(date, (day = new UsageDay(date)));
    return day;
  }
}
