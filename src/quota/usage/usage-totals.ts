import type { LedgerRecord } from "../memory/charge-record.ts";
import type { UsageRow, UsageSpan } from "../ledger.ts";
import { closedAmong, UsageDay } from "./usage-day.ts";

/** Names the totals' files. No user's name begins with _. */
export const totalsName = "_totals";

/** What all users together have used, by day and model: all kept days, so that nobody's file has to be read for it. */
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

  /** Counts a record of the journal. `date` is the day in which its user's history has it. */
  count(date: string, record: LedgerRecord): void {
    this.#day(date).count(record, false);
  }

  /** Adds what one user has used. */
  add(row: UsageRow): void {
    this.#day(row.day).add(row);
  }

  rows({ from, to }: UsageSpan): readonly UsageRow[] {
    return this.days.filter(({ date }) => date >= from && date <= to).flatMap(({ rows }) => rows);
  }

  /** Days before `today` that the archive does not have as they are. */
  closed(today: string): readonly UsageDay[] {
    const closed = closedAmong(this.days, today);
    for (const day of closed) day.state = "closing";
    return closed;
  }

  /** Notes what the archive has now, and forgets what is too old. One that has changed meanwhile is written again. */
  archived(days: readonly UsageDay[]): void {
    for (const day of days) if (day.state === "closing") day.state = "archived";
    // By their number and not by their dates, of which a clock that was wrong may have made some.
    for (const { date, state } of this.days.slice(0, -1 - this.#keepDays)) {
      if (state === "archived") this.#days.delete(date);
    }
  }

  /** As for a user's history. */
  forgetInFlight(): void {
    for (const day of this.#days.values()) day.inFlight = 0;
  }

  #day(date: string): UsageDay {
    let day = this.#days.get(date);
    if (day === undefined) this.#days.set(date, (day = new UsageDay(date)));
    return day;
  }
}
