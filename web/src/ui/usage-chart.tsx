import { useState } from "preact/hooks";
import { minuteTime, nanoText, shiftDay, shortDecimal, tight, toNano, today } from "../lib/format.ts";
import { t } from "../lib/i18n.ts";
import type { Usage, UsageRow } from "../lib/types.ts";
import { Chart } from "./chart.tsx";

const hourMs = 3_600_000;
/** Of rows that the server has summed already. No model or user has this name. */
const othersName = "\n";
const colors = ["c1", "c2", "c3", "c4", "c5", "c6"] as const;

/**
 * Usage by hour, day or month: cost where there is any, else tokens. If the rows are by model, group, provider or user
 * too, the largest five have colours of their own, and the rest is one.
 */
export function UsageChart({ usage }: { readonly usage: Usage | undefined }) {
  const currencies = [...new Set(usage?.rows.flatMap(({ costs }) => costs.map(({ currency }) => currency)) ?? [])];
  const units = [...currencies, "tokens", "requests"];
  const [chosen, setUnit] = useState<string>();
  const unit = chosen !== undefined && units.includes(chosen) ? chosen : (units[0] ?? "tokens");
  if (usage === undefined) return <div class="plot h220" />;
  const valueOf = (row: UsageRow): number => {
    if (unit === "tokens") return row.tokens;
    if (unit === "requests") return row.requests;
    return toNano(row.costs.find(({ currency }) => currency === unit)?.cost ?? "0");
  };
  const times = timesOf(usage);
  const days = times.map(({ name }) => name);
  const sums = new Map<string, Map<string, number>>();
  const totals = new Map<string, number>();
  for (const row of usage.rows) {
    const name = row.others !== undefined ? othersName : (row.model ?? row.group ?? row.provider ?? row.user ?? "");
    const day = timeOf(row);
    const line = sums.get(name) ?? new Map<string, number>();
    line.set(day, (line.get(day) ?? 0) + valueOf(row));
    sums.set(name, line);
    totals.set(name, (totals.get(name) ?? 0) + valueOf(row));
  }
  const hasOthers = totals.delete(othersName);
  const ranked = [...totals].sort((one, other) => other[1] - one[1]).map(([name]) => name);
  const shown = hasOthers || ranked.length > colors.length ? ranked.slice(0, colors.length - 1) : ranked;
  const rest = [...ranked.slice(shown.length), ...(hasOthers ? [othersName] : [])];
  const series = shown.map((name, index) => ({
    name: name === "" ? (shown.length > 1 ? "–" : unitName(unit)) : name,
    color: colors[index] ?? "c6",
    values: days.map((day) => sums.get(name)?.get(day) ?? 0),
  }));
  if (rest.length > 0) {
    const values = days.map((day) => rest.reduce((sum, name) => sum + (sums.get(name)?.get(day) ?? 0), 0));
    series.push({ name: t("others"), color: "c6", values });
  }
  if (series.length === 0) series.push({ name: unitName(unit), color: "c1", values: days.map(() => 0) });
  const money = unit !== "tokens" && unit !== "requests";
  return (
    <>
      <div class="tabs" role="group" aria-label={t("unit")}>
        {units.map((name) => (
          <button
            key={name}
            type="button"
            class="small"
            aria-pressed={name === unit}
            onClick={() => {
              setUnit(name);
            }}
          >
            {unitName(name)}
          </button>
        ))}
      </div>
      <Chart
        label={t("usageChart")}
        kind="bars"
        height={220}
        at={times.map(({ at }) => at)}
        series={series}
        formatX={(ms) => labelOf(usage, ms)}
        formatY={(value) => (money ? shortDecimal(nanoText(Math.round(value))) : tight(Math.round(value)))}
      />
    </>
  );
}

function unitName(unit: string): string {
  if (unit === "tokens") return t("tokens");
  return unit === "requests" ? t("metric_requests") : t("costIn", { currency: unit });
}

interface Time {
  /** As rows have it. */
  readonly name: string;
  /** ms */
  readonly at: number;
}

function timeOf({ hour, day, month }: UsageRow): string {
  return hour === undefined ? (day ?? month ?? "") : String(Date.parse(hour));
}

/** Every hour between the first and the last with usage, or every day or month of the span, those without usage too. */
function timesOf({ from, to, rows }: Usage): readonly Time[] {
  const hours = rows.flatMap(({ hour }) => (hour === undefined ? [] : [Date.parse(hour)]));
  if (hours.length > 0) {
    const first = hours.reduce((one, other) => Math.min(one, other));
    const last = hours.reduce((one, other) => Math.max(one, other));
    const count = Math.min(Math.floor((last - first) / hourMs) + 1, 2400);
    return Array.from({ length: count }, (_, index) => first + index * hourMs).map((at) => ({ name: String(at), at }));
  }
  const times: Time[] = [];
  const byMonth = rows.some(({ month }) => month !== undefined);
  for (let day = from; day <= to && times.length < 800; day = shiftDay(day, 1)) {
    const name = byMonth ? day.slice(0, 7) : day;
    // A time that lies in that day in all zones from -10 to +13 hours.
    if (times.at(-1)?.name !== name) times.push({ name, at: Date.parse(`${day}T10:30Z`) });
  }
  return times;
}

function labelOf({ rows }: Usage, ms: number): string {
  if (rows.some(({ hour }) => hour !== undefined)) return `${today(ms).slice(5)} ${minuteTime(ms)}`;
  return rows.some(({ month }) => month !== undefined) ? today(ms).slice(0, 7) : today(ms).slice(5);
}
