import { exactTime, nanoText, toNano } from "../lib/format.ts";
import { formatCount, t } from "../lib/i18n.ts";
import { csvLine } from "../lib/save.ts";
import type { Money, Usage, UsageRow } from "../lib/types.ts";
import { Costs } from "./basics.tsx";
import { Table } from "./table.tsx";

const counts = ["requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "tokens"] as const;

/** More rows would take seconds to draw. */
const mostRows = 500;

/** Rows of usage, the latest first, with the sum of all of them. */
export function UsageTable({
  usage,
  nameOfKey,
}: {
  readonly usage: Usage;
  readonly nameOfKey?: (id: string) => string;
}) {
  const { rows } = usage;
  const subjects = subjectsOf(rows);
  const labels = {
    user: t("user"),
    model: t("model"),
    api_key: t("key"),
    group: t("group"),
    provider: t("provider"),
  } as const;
  const sorted = hasDays(rows) ? [...rows].sort((one, other) => (dayOf(one) < dayOf(other) ? 1 : -1)) : rows;
  const table = (
    <Table
      label={t("usage")}
      rows={sorted.slice(0, mostRows)}
      keyOf={(row, index) => `${dayOf(row)} ${subjects.map((name) => row[name] ?? "").join(" ")} ${index}`}
      empty={t("noUsage")}
      columns={[
        ...(hasDays(rows) ? [{ head: t("time"), cell: dayOf }] : []),
        ...subjects.map((name, index) => ({
          head: labels[name],
          cell: (row: UsageRow) => {
            if (row.others !== undefined) return index === 0 ? `${t("others")} (${formatCount(row.others)})` : "";
            return name === "api_key" ? (nameOfKey?.(row.api_key ?? "") ?? row.api_key) : row[name];
          },
        })),
        ...counts.map((name) => ({ head: t(name), num: true, cell: (row: UsageRow) => formatCount(row[name]) })),
        { head: t("cost"), num: true, cell: ({ costs }) => <Costs costs={costs} /> },
      ]}
      foot={[
        ...(hasDays(rows) ? [t("sum")] : []),
        ...subjects.map((_name, index) => (index === 0 && !hasDays(rows) ? t("sum") : "")),
        ...counts.map((name) => formatCount(rows.reduce((sum, row) => sum + row[name], 0))),
        <Costs key="cost" costs={sumCosts(rows)} />,
      ]}
    />
  );
  const { missing_before: missing } = usage;
  if (rows.length <= mostRows && missing === undefined) return table;
  return (
    <>
      {missing !== undefined && <p class="note">{t("missingBefore", { time: exactTime(missing) })}</p>}
      {rows.length > mostRows && <p class="note">{t("firstRows", { shown: mostRows, all: rows.length })}</p>}
      {table}
    </>
  );
}

function dayOf(row: UsageRow): string {
  return row.day ?? row.month ?? row.hour?.slice(0, 16).replace("T", " ") ?? "";
}

function hasDays(rows: readonly UsageRow[]): boolean {
  return rows.some((row) => dayOf(row) !== "");
}

function subjectsOf(rows: readonly UsageRow[]) {
  const names = ["user", "api_key", "model", "group", "provider"] as const;
  return names.filter((name) => rows.some((row) => row[name] !== undefined));
}

/** The sum of exact decimals, by currency. */
function sumCosts(rows: readonly UsageRow[]): readonly Money[] {
  const sums = new Map<string, number>();
  for (const { costs } of rows) {
    for (const { cost, currency } of costs) sums.set(currency, (sums.get(currency) ?? 0) + toNano(cost));
  }
  return [...sums].map(([currency, nano]) => ({ cost: nanoText(nano), currency }));
}

/** The same as CSV, with a line of sums for each currency. */
export function usageCsv(usage: Usage, nameOfKey: (id: string) => string): string {
  const { rows, timezone } = usage;
  const subjects = subjectsOf(rows);
  const head = [`time (${timezone})`, ...subjects, ...counts, "cost", "currency"];
  const lines = rows.flatMap((row) => {
    const names = subjects.map((name) => (name === "api_key" ? nameOfKey(row.api_key ?? "") : (row[name] ?? "")));
    const costs = row.costs.length === 0 ? [{ cost: "0", currency: "" }] : row.costs;
    // Only the first line of a row has the counts, so that each column can be summed.
    return costs.map(({ cost, currency }, index) =>
      csvLine([dayOf(row), ...names, ...counts.map((name) => (index === 0 ? row[name] : 0)), cost, currency]),
    );
  });
  const sums = sumCosts(rows);
  const totals = (sums.length === 0 ? [{ cost: "0", currency: "" }] : sums).map(({ cost, currency }, index) =>
    csvLine([
      "total",
      ...subjects.map(() => ""),
      ...counts.map((name) => (index === 0 ? rows.reduce((sum, row) => sum + row[name], 0) : 0)),
      cost,
      currency,
    ]),
  );
  return csvLine(head) + lines.join("") + totals.join("");
}
