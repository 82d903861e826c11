import { isGroupAccount } from "../accounts.ts";
import type { UsageRow } from "../ledger.ts";
import type { LedgerRecord } from "../memory/charge-record.ts";
import type { PeriodAt } from "../periods.ts";
import { addRow, copyRow, countInRow, emptyRow, type UsageTally } from "./usage-row.ts";

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
  readonly #maxRows: number;
  /** Oldest first. */
  #days: readonly OpenDay[];

  /** @param maxRows of a new day */
  constructor(periodAt: PeriodAt, days: readonly OpenDay[] = [], maxRows = maxRowsOfUser) {
    this.#periodAt = periodAt;
    this.#days = days;
    this.#maxRows = maxRows;
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
    const day = new UsageDay(date, [], this.#maxRows);
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

/** Model names come from clients; beyond so many rows a day, the rest is counted together. */
const maxRowsOfUser = 200;
/** Those of a group are by member as well. */
const maxRowsOfGroup = 1000;

/** Rows of an account on one day beyond which the rest is counted together. */
export function maxRowsOf(account: string): number {
  return isGroupAccount(account) ? maxRowsOfGroup : maxRowsOfUser;
}

/** What was used on one day, by model and API key. */
export class UsageDay {
  /** YYYY-MM-DD. */
  readonly date: string;
  /** Requests of this process that are charged on this day and will be settled. */
  inFlight = 0;
  /** Whether the archive has its current state; `closing` while it is being written there. */
  state: "open" | "closing" | "archived" = "open";
  readonly #rows = new Map<string, UsageTally>();
  readonly #maxRows: number;

  /** @param maxRows beyond which the rest is counted together */
  constructor(date: string, rows: readonly UsageRow[] = [], maxRows = maxRowsOfUser) {
    this.date = date;
    this.#maxRows = maxRows;
    for (const row of rows) this.#rows.set(rowName(row.model, row.key), copyRow(row));
  }

  /** By model and key, in their order; counting continues to change them. */
  get rows(): readonly UsageRow[] {
    return [...this.#rows.values()].sort(byDayAndModel);
  }

  /**
   * Counts a record of the journal.
   * @param byKey false for sums over all users: no two of them share a key
   */
  count(record: LedgerRecord, byKey = true): void {
    this.state = "open";
    if (record.kind === "charge") this.inFlight++;
    // During recovery, the charge of a settlement may be in the snapshot.
    if (record.kind === "settle" && this.inFlight > 0) this.inFlight--;
    const model = record.kind === "charge" || record.kind === "settle" ? record.model : "adjust";
    const key = byKey && "apiKey" in record ? (record.apiKey ?? "") : "";
    countInRow(this.#row(model, key), record);
  }

  /** Adds the usage of another day or user: then under a single key. */
  add(row: UsageRow, key = ""): void {
    this.state = "open";
    addRow(this.#row(row.model, key), row);
  }

  #row(model: string, key: string): UsageTally {
    const name = rowName(model, key);
    const known = this.#rows.get(name);
    if (known !== undefined) return known;
    if (this.#rows.size >= this.#maxRows && (model !== "other" || key !== "")) return this.#row("other", "");
    const row = emptyRow(this.date, model, key);
    this.#rows.set(name, row);
    return row;
  }
}

/** Ids of keys contain no line feed. */
function rowName(model: string, key: string): string {
  return `${key}\n${model}`;
}

/** By day, then by model, then by API key. */
export function byDayAndModel(a: UsageRow, b: UsageRow): number {
  if (a.day !== b.day) return a.day < b.day ? -1 : 1;
  if (a.model !== b.model) return a.model < b.model ? -1 : 1;
  return a.key === b.key ? 0 : a.key < b.key ? -1 : 1;
}

/**
 * Those days, oldest first, in which nothing will be counted any more once everything is settled: all before `today`
 * except the newest. If a clock was ahead for a while, the newest is not today, and is still counted in.
 */
export function closedAmong(days: readonly UsageDay[], today: string): readonly UsageDay[] {
  return days
    .slice(0, -1)
    .filter(({ date, inFlight, state }) => date < today && inFlight === 0 && state !== "archived");
}
