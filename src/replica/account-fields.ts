import { Amounts } from "../quota/amounts.ts";
import type { PeriodCounts, Window } from "../quota/memory/period-counts.ts";
import { countMetrics } from "../quota/metrics.ts";
import { isEndless, periodNames } from "../quota/periods.ts";

/** What was used, as the fields of an account's hash in Redis: a flat list of names and values. See ledger.lua. */
export function fieldsOf({ windows }: Pick<PeriodCounts, "windows">): readonly string[] {
  return windows.flatMap(({ per, start, end, used }) => {
    if (end === 0) return [];
    const counted = countMetrics.filter((metric) => used[metric] > 0).map((metric) => [metric, used[metric]] as const);
    const costs = [...used.costs].filter(([, nano]) => nano > 0).map(([code, nano]) => [`cost:${code}`, nano] as const);
    return [
      `${per}:start`,
      String(start),
      `${per}:end`,
      end === Infinity ? "inf" : String(end),
      ...[...counted, ...costs].flatMap(([name, amount]) => [`${per}:${name}`, String(amount)]),
    ];
  });
}

/** The windows that a hash has. */
export function windowsOf(fields: Readonly<Record<string, string>>): readonly Window[] {
  return periodNames.flatMap((per) => {
    const end = fields[`${per}:end`];
    if (end === undefined && !isEndless(per)) return [];
    const used = new Amounts();
    for (const [field, text] of Object.entries(fields)) {
      const [of, metric, currency] = field.split(":");
      if (of !== per) continue;
      if (metric === "cost" && currency !== undefined) used.costs.set(currency, Number(text));
      else for (const name of countMetrics) if (name === metric) used[name] = Number(text);
    }
    const start = Number(fields[`${per}:start`] ?? 0);
    return [{ per, start, end: end === undefined || end === "inf" ? Infinity : Number(end), used }];
  });
}
