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

/** What usage can be grouped by. An hour, a day and a month are those of the charge, in the quota's time zone. */
export type UsageSubject = "user" | "group" | "key" | "model" | "provider" | "hour" | "day" | "month";

/** Whether it says when something was used, and not by whom or what. */
export function isTime(subject: UsageSubject): boolean {
  return subject === "hour" || subject === "day" || subject === "month";
}

/** A row, or the sum of several: then its day, model or key may be "". `user` is undefined for all users together. */
export interface UsageLine {
  readonly user: string | undefined;
  readonly row: UsageRow;
  /** What it is the usage of, where that is more than a row of the history says. */
  readonly names?: Readonly<Partial<Record<UsageSubject, string>>>;
  /** How many others are summed in it, where only the largest have rows of their own. */
  readonly others?: number;
}

/** The subjects of each grouping; `all` is by user, day and model. */
export const usageKeys = {
  day: ["day"],
  model: ["model"],
  key: ["user", "key"],
  both: ["day", "model"],
  user: ["user"],
  all: ["user", "day", "model"],
  month: ["month"],
  hour: ["hour"],
  group: ["group"],
  provider: ["provider"],
} as const satisfies Readonly<Record<string, readonly UsageSubject[]>>;

export type UsageBy = keyof typeof usageKeys;

/** A sum of more rows would be a matter for the export. */
export const maxSums = 100_000;

/** Thrown where an answer would have too many rows. */
export class TooManyRows extends Error {
  override readonly name = "TooManyRows";
}

/**
 * Sums lines in any order by some subjects. The sums come after the last line, ordered by their names.
 * @throws TooManyRows, and what the lines throw
 */
export async function* sumBySubjects(
  lines: AsyncIterable<UsageLine> | Iterable<UsageLine>,
  subjects: readonly UsageSubject[],
): AsyncGenerator<UsageLine> {
  const sums = new Map<string, { readonly line: UsageLine; readonly row: UsageTally }>();
  for await (const line of lines) {
    const names = subjects.map((subject) => nameOf(line, subject));
    const name = names.join("\n");
    let sum = sums.get(name);
    if (sum === undefined) {
      if (sums.size >= maxSums) throw new TooManyRows();
      const row = emptyRow("", "");
      const named = Object.fromEntries(subjects.map((subject, index) => [subject, names[index] ?? ""]));
      sums.set(name, (sum = { line: { user: named.user, row, names: named }, row }));
    }
    addRow(sum.row, line.row);
  }
  yield* [...sums].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, { line }]) => line);
}

/**
 * The lines of those with the most tokens, and the sum of all others at each time, in their order. `lines` are those of
 * sumBySubjects.
 */
export function largestOf(
  lines: readonly UsageLine[],
  subjects: readonly UsageSubject[],
  top: number,
): readonly UsageLine[] {
  const time = subjects.find(isTime);
  const whatOf = (line: UsageLine): string =>
    subjects
      .filter((subject) => subject !== time)
      .map((subject) => nameOf(line, subject))
      .join("\n");
  const tokens = new Map<string, number>();
  for (const line of lines) {
    const what = whatOf(line);
    tokens.set(what, (tokens.get(what) ?? 0) + line.row.tokens);
  }
  if (tokens.size <= top) return lines;
  const ranked = [...tokens].sort(([a, ofA], [b, ofB]) => ofB - ofA || (a < b ? -1 : 1)).map(([what]) => what);
  const kept = new Set(ranked.slice(0, top));
  const rest = new Map<string, UsageTally>();
  for (const line of lines) {
    if (kept.has(whatOf(line))) continue;
    const at = time === undefined ? "" : nameOf(line, time);
    const sum = rest.get(at) ?? emptyRow("", "");
    addRow(sum, line.row);
    rest.set(at, sum);
  }
  const sums = [...rest].map(([at, row]): UsageLine => {
    const names = time === undefined ? {} : { [time]: at };
    return { user: undefined, row, names, others: tokens.size - top };
  });
  return [...lines.filter((line) => kept.has(whatOf(line))), ...sums];
}

function nameOf({ user = "", row, names }: UsageLine, subject: UsageSubject): string {
  if (names !== undefined) return names[subject] ?? "";
  if (subject === "user") return user;
  if (subject === "month") return row.day.slice(0, 7);
  return subject === "day" || subject === "model" || subject === "key" ? row[subject] : "";
}

/**
 * Sums lines that come one for each user, day, model and API key, in this order. By user, day and model only the keys
 * have to be summed, and the lines are passed on as they come; other sums come after the last line, ordered by their
 * grouping.
 */
export async function* sumUsage(
  lines: AsyncIterable<UsageLine> | Iterable<UsageLine>,
  by: Exclude<UsageBy, "hour" | "month" | "group" | "provider">,
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
