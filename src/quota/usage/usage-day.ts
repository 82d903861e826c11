import type { LedgerRecord } from "../charge-record.ts";
import type { UsageRow } from "../ledger.ts";
import { addRow, copyRow, countInRow, emptyRow, type UsageTally } from "./usage-row.ts";

/** Names of models come from clients; beyond so many on a day, the rest is counted together. */
const maxModels = 200;

/** What was used on one day, by model. */
export class UsageDay {
  /** YYYY-MM-DD. */
  readonly date: string;
  /** Requests of this process that are charged here and will be settled. */
  inFlight = 0;
  /** Whether the archive has it, as it is now; `closing` while it is being written there. */
  state: "open" | "closing" | "archived" = "open";
  readonly #rows = new Map<string, UsageTally>();

  constructor(date: string, rows: readonly UsageRow[] = []) {
    this.date = date;
    for (const row of rows) this.#rows.set(row.model, copyRow(row));
  }

  /** By model, in their order; they go on being counted in. */
  get rows(): readonly UsageRow[] {
    return [...this.#rows.values()].sort((a, b) => (a.model < b.model ? -1 : 1));
  }

  /** Counts a record of the journal. */
  count(record: LedgerRecord): void {
    this.state = "open";
    if (record.kind === "charge") this.inFlight++;
    // At recovery, the charge of a settle may be in the snapshot.
    if (record.kind === "settle" && this.inFlight > 0) this.inFlight--;
    const model = record.kind === "charge" || record.kind === "settle" ? record.model : "adjust";
    countInRow(this.#row(model), record);
  }

  /** Adds what somebody else has used. */
  add(row: UsageRow): void {
    this.state = "open";
    addRow(this.#row(row.model), row);
  }

  #row(model: string): UsageTally {
    const known = this.#rows.get(model);
    if (known !== undefined) return known;
    if (this.#rows.size >= maxModels && model !== "other") return this.#row("other");
    const row = emptyRow(this.date, model);
    this.#rows.set(model, row);
    return row;
  }
}

/** Of days, oldest first, those in which nothing will be counted any more: all but the newest, once all is settled. */
export function closedAmong(days: readonly UsageDay[]): readonly UsageDay[] {
  return days.slice(0, -1).filter(({ inFlight, state }) => inFlight === 0 && state !== "archived");
}
