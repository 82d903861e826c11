import { get } from "../lib/api.ts";
import { shiftDay, today } from "../lib/format.ts";
import { t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { route, setQuery } from "../lib/router.ts";
import type { Usage } from "../lib/types.ts";
import { Card, ErrorNote, Page } from "../ui/basics.tsx";
import { Select } from "../ui/dialog.tsx";
import { DayRange, FilterField } from "../ui/filters.tsx";
import { subjectOf, UsageChart } from "../ui/usage-chart.tsx";
import { UsageTable } from "../ui/usage-table.tsx";

/** Usage of everybody by time and one more thing; as a curve, a table and CSV of exactly this view. */
export function Reports() {
  const { query } = route.value;
  const to = query.get("to") ?? today();
  const from = query.get("from") ?? shiftDay(to, -6);
  const by = query.get("by") ?? "day";
  const groupBy = query.get("group_by") ?? "model";
  const asked = { from, to, by, group_by: groupBy, user: query.get("user") ?? "" };
  const usage = useLoad(JSON.stringify(asked), (signal) => get<Usage>("/admin/usage", asked, signal));
  const csv = new URLSearchParams(Object.entries({ ...asked, format: "csv" }).filter(([, value]) => value !== ""));
  return (
    <Page
      title={t("reports")}
      note={t("daysIn", { zone: usage.data?.timezone ?? "…" })}
      actions={
        <a class="button" href={`/admin/usage?${csv.toString()}`} download={`usage_${from}_${to}_${by}_${groupBy}.csv`}>
          {t("csv")}
        </a>
      }
    >
      <div class="filters">
        <DayRange from={from} to={to} />
        <Select
          label={t("every")}
          name="by"
          value={by}
          options={[
            ["hour", t("everyHour")],
            ["day", t("everyDay")],
            ["month", t("everyMonth")],
          ]}
          onChange={(value) => {
            setQuery({ by: value });
          }}
        />
        <Select
          label={t("groupedBy")}
          name="group_by"
          value={groupBy}
          options={[
            ["model", t("model")],
            ["user", t("user")],
            ["group", t("group")],
            ["key", t("key")],
            ["provider", t("provider")],
          ]}
          onChange={(value) => {
            setQuery({ group_by: value });
          }}
        />
        <FilterField label={t("user")} name="user" search />
      </div>
      <Card dim={usage.loading}>
        <ErrorNote error={usage.error} retry={usage.reload} />
        <UsageChart usage={usage.data} subject={subjectOf} />
      </Card>
      <Card dim={usage.loading}>{usage.data !== undefined && <UsageTable usage={usage.data} />}</Card>
    </Page>
  );
}
