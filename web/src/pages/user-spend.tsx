import { get } from "../lib/api.ts";
import { t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { askedSpan } from "../lib/span.ts";
import type { Usage } from "../lib/types.ts";
import { Card, ErrorNote } from "../ui/basics.tsx";
import { DayRange } from "../ui/filters.tsx";
import { UsageChart } from "../ui/usage-chart.tsx";
import { UsageTable } from "../ui/usage-table.tsx";

/** A user's usage by day and model. */
export function UserSpend({ name }: { readonly name: string }) {
  const { from, to } = askedSpan(30);
  const usage = useLoad(`${name} ${from} ${to}`, (signal) =>
    get<Usage>("/admin/usage", { user: name, from, to, by: "both" }, signal),
  );
  return (
    <Card
      title={t("usage")}
      dim={usage.loading}
      actions={<span class="note">{t("daysIn", { zone: usage.data?.timezone ?? "…" })}</span>}
    >
      <div class="filters">
        <DayRange from={from} to={to} />
      </div>
      <ErrorNote error={usage.error} retry={usage.reload} />
      <UsageChart usage={usage.data} />
      {usage.data !== undefined && <UsageTable usage={usage.data} />}
    </Card>
  );
}
