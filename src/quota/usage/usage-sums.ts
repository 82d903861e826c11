import type { UsageRow } from "../ledger.ts";
import { addRow, emptyRow, type UsageTally } from "./usage-row.ts";

/** By what usage can be added up; `all` is by user, day and model. */
export type UsageBy = "day" | "model" | "both" | "user" | "all";

/** A row, or the sum of several: then its day or model may be "". `user` is undefined for all users together. */
export interface UsageLine {
  readonly user: string | undefined;
  readonly row: UsageRow;
}

/** What lines are told apart by. */
export const usageKeys: Readonly<Record<UsageBy, readonly ("user" | "day" | "model")[]>> = {
  day: ["day"],
  model: ["model"],
  both: ["day", "model"],
  user: ["user"],
  all: ["user", "day", "model"],
};

/**
 * Adds up lines that come one for each user, day and model. Where nothing is to be added up they are handed on one by
 * one; the sums come after the last, in the order of their keys.
 */
export async function* sumUsage(
  lines: AsyncIterable<UsageLine> | Iterable<UsageLine>,
  by: UsageBy,
): AsyncGenerator<UsageLine> {
  if (by === "both" || by === "all") {
    yield* lines;
    return;
  }
  const sums = new Map<string, { user: string | undefined; row: UsageTally }>();
  for await (const { user, row } of lines) {
    const key = by === "user" ? (user ?? "") : row[by];
    let sum = sums.get(key);
    if (sum === undefined) {
      const [day, model] = [by === "day" ? row.day : "", by === "model" ? row.model : ""];
      sums.set(key, (sum = { user, row: emptyRow(day, model) }));
    }
    addRow(sum.row, row);
  }
  yield* [...sums].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, sum]) => sum);
}
