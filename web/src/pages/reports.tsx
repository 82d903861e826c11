import { get } from "../lib/api.ts";
import { t } from "../lib/i18n.ts";
import { useLoad, type Loaded } from "../lib/load.ts";
import { route, setQuery } from "../lib/router.ts";
import { askedSpan } from "../lib/span.ts";
import type { Usage } from "../lib/types.ts";
import { Card, ErrorNote, Page } from "../ui/basics.tsx";
import { Select } from "../ui/dialog.tsx";
import { DayRange, UserFilter } from "../ui/filters.tsx";
import { UsageChart } from "../ui/usage-chart.tsx";
import { UsageTable } from "../ui/usage-table.tsx";

const groupings = ["both", "day", "month", "hour", "model", "user", "key", "all", "group", "provider"] as const;
const steps = ["day", "hour", "month"] as const;

/**
 * Usage of everybody, or of one user: a curve by hour, day or month of what is grouped by, else of models; any grouping
 * as a table and as CSV.
 */
export function Reports() {
  const { query } = route.value;
  const span = askedSpan(7);
  const user = query.get("user") ?? "";
  const by = groupings.find((one) => one === query.get("by")) ?? "both";
  const step = steps.find((one) => one === query.get("step")) ?? (by === "hour" || by === "month" ? by : "day");
  const curve = by === "group" || by === "provider" || by === "user" ? by : "model";
  const days = useUsage({ ...span, by: curve, per: step, user, top: "5" });
  const usage = useUsage({ ...span, by, user, top: by === "both" || by === "all" ? "50" : "200" });
  const csv = new URLSearchParams({ ...span, by, format: "csv", ...(user === "" ? {} : { user }) });
  const labels = {
    both: t("byDayModel"),
    day: t("byDay"),
    month: t("byMonth"),
    hour: t("byHour"),
    group: t("group"),
    provider: t("provider"),
    model: t("byModel"),
    user: t("byUser"),
    key: t("byUserKey"),
    all: t("byUserDayModel"),
  } as const;
  return (
    <Page
      title={t("reports")}
      note={t("daysIn", { zone: usage.data?.timezone ?? "…" })}
      actions={
        <a class="button" href={`/admin/usage?${csv.toString()}`} download={`usage_${span.from}_${span.to}_${by}.csv`}>
          {t("csv")}
        </a>
      }
    >
      <div class="filters">
        <DayRange {...span} />
        <Select
          label={t("groupedBy")}
          name="by"
          value={by}
          options={groupings.map((one) => [one, labels[one]])}
          onChange={(value) => {
            setQuery({ by: value });
          }}
        />
        <Select
          label={t("curveBy")}
          name="step"
          value={step}
          options={steps.map((one) => [one, labels[one]])}
          onChange={(value) => {
            setQuery({ step: value });
          }}
        />
        <UserFilter label={t("user")} />
      </div>
      <Card dim={days.loading}>
        <ErrorNote error={days.error} retry={days.reload} />
        <UsageChart usage={days.data} />
      </Card>
      <Card dim={usage.loading}>
        <ErrorNote error={usage.error} retry={usage.reload} />
        {usage.data !== undefined && <UsageTable usage={usage.data} />}
      </Card>
    </Page>
  );
}

function useUsage(asked: Readonly<Record<string, string>>): Loaded<Usage> {
  return useLoad(JSON.stringify(asked), (signal) => get<Usage>("/admin/usage", asked, signal));
}
