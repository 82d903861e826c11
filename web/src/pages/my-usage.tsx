import { get, part } from "../lib/api.ts";
import { t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { route, setQuery } from "../lib/router.ts";
import { session } from "../lib/session.ts";
import { askedSpan } from "../lib/span.ts";
import type { Key, Usage } from "../lib/types.ts";
import { Card, ErrorNote, Page } from "../ui/basics.tsx";
import { DayRange } from "../ui/filters.tsx";
import { Select } from "../ui/dialog.tsx";
import { UsageChart } from "../ui/usage-chart.tsx";
import { UsageTable, usageCsv } from "../ui/usage-table.tsx";
import { saveText } from "../lib/save.ts";

/** One's own usage by day, model or key; as a curve, a table and CSV. */
export function MyUsage() {
  const { query } = route.value;
  const { from, to } = askedSpan(30);
  const group = query.get("group") ?? "";
  const path = group === "" ? "/auth/usage" : `/auth/groups/${part(group)}/usage`;
  const names: readonly (readonly [string, string])[] = [
    ["day", t("byDay")],
    ["model", t("byModel")],
    group === "" ? ["key", t("byKey")] : ["user", t("byUser")],
    ["both", t("byDayModel")],
  ];
  const by = names.find(([name]) => name === query.get("by"))?.[0] ?? "day";
  const usage = useLoad(`${path} ${from} ${to} ${by}`, (signal) => get<Usage>(path, { from, to, by }, signal));
  const days = useLoad(`${path} ${from} ${to}`, (signal) => get<Usage>(path, { from, to, by: "both" }, signal));
  const keys = useLoad("keys", (signal) => get<{ readonly keys: readonly Key[] }>("/auth/keys", {}, signal));
  const owned = session.value?.group_owner_of ?? [];
  const nameOfKey = (id: string): string =>
    id === "" ? t("noKey") : (keys.data?.keys.find((key) => key.id === id)?.name ?? id);
  const save = (): void => {
    if (usage.data !== undefined) saveText(`usage_${from}_${to}_${by}.csv`, usageCsv(usage.data, nameOfKey));
  };
  return (
    <Page
      title={t("usage")}
      note={t("daysIn", { zone: usage.data?.timezone ?? "…" })}
      actions={
        <button type="button" onClick={save} disabled={usage.data === undefined}>
          {t("csv")}
        </button>
      }
    >
      <div class="filters">
        <DayRange from={from} to={to} />
        <Select
          label={t("groupedBy")}
          name="by"
          value={by}
          options={names}
          onChange={(value) => {
            setQuery({ by: value });
          }}
        />
        {owned.length > 0 && (
          <Select
            label={t("whose")}
            name="group"
            value={group}
            options={[
              ["", t("mine")],
              ...owned.map((name): readonly [string, string] => [name, t("ofGroup", { name })]),
            ]}
            onChange={(value) => {
              setQuery({ group: value, by: undefined });
            }}
          />
        )}
      </div>
      <Card dim={days.loading}>
        <ErrorNote error={days.error} retry={days.reload} />
        <UsageChart usage={days.data} />
      </Card>
      <Card dim={usage.loading}>
        <ErrorNote error={usage.error} retry={usage.reload} />
        {usage.data !== undefined && <UsageTable usage={usage.data} nameOfKey={nameOfKey} />}
      </Card>
    </Page>
  );
}
