import { userName } from "../memory/charge-record.ts";
import type { Ledger, UsageRow, UsageSpan } from "../ledger.ts";
import type { UsageArchive } from "./usage-archive.ts";
import { byDayAndModel } from "./usage-day.ts";
import { copyRow } from "./usage-row.ts";
import type { UsageTotals } from "./usage-totals.ts";
import type { UserQuota } from "../memory/user-quota.ts";

export interface UsageQueriesOptions {
  readonly users: ReadonlyMap<string, UserQuota>;
  readonly totals: UsageTotals;
  readonly archive: UsageArchive;
}

/** Queries usage: from memory for open days and totals, from the archive for the rest. */
export function createUsageQueries(options: UsageQueriesOptions): Required<Pick<Ledger, "usage" | "usageOfAll">> {
  const { users, totals, archive } = options;

  async function usageOf(name: string, span: UsageSpan): Promise<readonly UsageRow[]> {
    if (!userName.test(name)) throw new RangeError(`${JSON.stringify(name)} is no user name`);
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
      for (const user of [...new Set([...users.keys(), ...archived])].sort()) {
        for (const row of await usageOf(user, span)) yield { user, row };
      }
    },
  };
}
