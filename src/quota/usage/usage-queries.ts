import type { Ledger, UsageRow, UsageSpan } from "../ledger.ts";
import { accountName, isGroupAccount, userName } from "../accounts.ts";
import type { UserQuota } from "../memory/user-quota.ts";
import type { UsageArchive } from "./usage-archive.ts";
import { byDayAndModel } from "./usage-history.ts";
import { addRow, copyRow, emptyRow, type UsageTally } from "./usage-row.ts";
import type { UsageTotals } from "./usage-totals.ts";

export interface UsageQueriesOptions {
  readonly users: ReadonlyMap<string, UserQuota>;
  readonly totals: UsageTotals;
  readonly archive: UsageArchive;
}

/** Queries usage: from memory for open days and totals, from the archive for the rest. */
export function createUsageQueries(options: UsageQueriesOptions): Required<Pick<Ledger, "usage" | "usageOfAll">> {
  const { users, totals, archive } = options;

  async function usageOf(name: string, span: UsageSpan): Promise<readonly UsageRow[]> {
    if (!accountName.test(name)) throw new RangeError(`${JSON.stringify(name)} is no user name`);
    // Memory first, in its current state: a day that moves to the archive meanwhile is then seen at least once.
    const days = users.get(name)?.history.days.map(({ day }) => day.date) ?? [];
    const open = users.get(name)?.history.rows().map(copyRow) ?? [];
    const newest = days.at(-1);
    const archived = newest !== undefined && span.from >= newest ? [] : await archive.read(name, span);
    // Memory is newer than what a crash may have left in the archive.
    const rows = [...archived.filter(({ day }) => !days.includes(day)), ...open];
    return rows.filter(({ day }) => day >= span.from && day <= span.to).sort(byDayAndModel);
  }

  return {
    usage: ({ user, ...span }) => (user === undefined ? totals.rows(span).map(copyRow) : usageOf(user, span)),
    async *usageOfAll(span) {
      const archived = (await archive.names()).filter((name) => userName.test(name));
      const counted = [...users.keys()].filter((name) => !isGroupAccount(name));
      for (const user of [...new Set([...counted, ...archived])].sort()) {
        for (const row of await usageOf(user, span)) yield { user, row };
      }
    },
  };
}

/** How usage can be grouped; `all` is by user, day and model. */
export type UsageBy = "day" | "model" | "key" | "both" | "user" | "all";

/** A row, or the sum of several: then its day, model or key may be "". `user` is undefined for all users together. */
export interface UsageLine {
  readonly user: string | undefined;
  readonly row: UsageRow;
}

/** The fields of each grouping. */
export const usageKeys: Readonly<Record<UsageBy, readonly ("user" | "day" | "model" | "key")[]>> = {
  day: ["day"],
  model: ["model"],
  key: ["user", "key"],
  both: ["day", "model"],
  user: ["user"],
  all: ["user", "day", "model"],
};

/**
 * Sums lines that come one for each user, day, model and API key, in this order. By user, day and model only the keys
 * have to be summed, and the lines are passed on as they come; other sums come after the last line, ordered by their
 * grouping.
 */
export async function* sumUsage(
  lines: AsyncIterable<UsageLine> | Iterable<UsageLine>,
  by: UsageBy,
): AsyncGenerator<UsageLine> {
  if (by === "both" || by === "all") {
    yield* withoutKeys(lines);
    return;
  }
  const sums = new Map<string, { user: string | undefined; row: UsageTally }>();
  for await (const { user, row } of lines) {
    const name = by === "user" ? (user ?? "") : by === "key" ? `${user ?? ""} ${row.key}` : row[by];
    let sum = sums.get(name);
    if (sum === undefined) {
      const of = (one: "day" | "model" | "key"): string => (by === one ? row[one] : "");
      sums.set(name, (sum = { user, row: emptyRow(of("day"), of("model"), of("key")) }));
    }
    addRow(sum.row, row);
  }
  yield* [...sums].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, sum]) => sum);
}

/** Lines of the same user, day and model are adjacent. */
async function* withoutKeys(lines: AsyncIterable<UsageLine> | Iterable<UsageLine>): AsyncGenerator<UsageLine> {
  let sum: { readonly user: string | undefined; readonly row: UsageTally } | undefined;
  for await (const { user, row } of lines) {
    if (sum === undefined || sum.user !== user || sum.row.day !== row.day || sum.row.model !== row.model) {
      if (sum !== undefined) yield sum;
      sum = { user, row: emptyRow(row.day, row.model) };
    }
    addRow(sum.row, row);
  }
  if (sum !== undefined) yield sum;
}
