import { get, part } from "../lib/api.ts";
import { inline } from "../lib/facts.ts";
import { t } from "../lib/i18n.ts";
import { usePages } from "../lib/pages.ts";
import { route } from "../lib/router.ts";
import type { LogPage } from "../lib/types.ts";
import { Card, ErrorNote, Time } from "../ui/basics.tsx";
import { FilterField } from "../ui/filters.tsx";
import { More, Table } from "../ui/table.tsx";

const hidden = new Set(["ts", "event", "user", "id"]);

/** What a user did, newest first. */
export function Timeline({ name }: { readonly name: string }) {
  const type = route.value.query.get("type") ?? "";
  const page = usePages(`${name} ${type}`, async (cursor, signal) => {
    const path = `/admin/users/${part(name)}/behaviour`;
    const { events, next_cursor: next } = await get<LogPage>(path, { type, cursor, limit: 50 }, signal);
    return { items: events, next };
  });
  return (
    <Card title={t("tabBehaviour")} dim={page.loading}>
      <div class="filters">
        <FilterField label={t("eventType")} name="type" search />
      </div>
      <ErrorNote error={page.error} retry={page.reload} />
      <Table
        label={t("tabBehaviour")}
        rows={page.items}
        keyOf={(line, index) => `${line.ts} ${index}`}
        empty={page.loading ? "…" : t("nothingFits")}
        columns={[
          { head: t("time"), cell: ({ ts }) => <Time iso={ts} /> },
          { head: t("eventType"), cell: ({ event }) => <span class="mono">{event}</span> },
          {
            head: t("facts"),
            cell: (line) => (
              <span class="note">
                {Object.entries(line)
                  .filter(([field, value]) => !hidden.has(field) && value !== "" && value !== null && value !== 0)
                  .map(([field, value]) => `${field} ${inline(value)}`)
                  .join(" · ")}
              </span>
            ),
          },
        ]}
      />
      <More busy={page.loading} more={page.more} onMore={page.loadMore} />
    </Card>
  );
}
