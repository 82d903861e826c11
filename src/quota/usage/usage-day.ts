import type { LedgerRecord } from "../memory/charge-record.ts";
import type { UsageRow } from "../ledger.ts";
import { addRow, copyRow, countInRow, emptyRow, type UsageTally } from "./usage-row.ts";

/** Model names come from clients; beyond so many rows a day, the rest is counted together. */
const maxRows = 200;

/** What was used on one day, by model and API key. */
export class UsageDay {
  /** YYYY-MM-DD. */
  readonly date: string;
  /** Requests of this process that are charged on this day and will be settled. */
  inFlight = 0;
  /** Whether the archive has its current state; `closing` while it is being written there. */
  state: "open" | "closing" | "archived" = "open";
  readonly #rows = new Map<string, UsageTally>();

  constructor(date: string, rows: readonly UsageRow[] = []) {
    this.date = date;
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
    if (this.#rows.size >= maxRows && (model !== "other" || key !== "")) return this.#row("other", "");
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
