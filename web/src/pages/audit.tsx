import { get } from "../lib/api.ts";
import { inline, textOf } from "../lib/facts.ts";
import { t } from "../lib/i18n.ts";
import { usePages } from "../lib/pages.ts";
import { hrefOf, route } from "../lib/router.ts";
import type { LogLine, LogPage } from "../lib/types.ts";
import { Card, ErrorNote, Page, Time } from "../ui/basics.tsx";
import { FilterField, UserFilter } from "../ui/filters.tsx";
import { More, Table } from "../ui/table.tsx";

/** Who changed what, with what was there before. */
export function Audit() {
  const { query } = route.value;
  const asked = { user: query.get("user") ?? "", by: query.get("by") ?? "", action: query.get("action") ?? "" };
  const page = usePages(JSON.stringify(asked), async (cursor, signal) => {
    const { events, next_cursor: next } = await get<LogPage>("/admin/audit", { ...asked, cursor, limit: 50 }, signal);
    return { items: events, next };
  });
  return (
    <Page title={t("audit")} note={t("auditNote")}>
      <div class="filters">
        <UserFilter label={t("user")} />
        <FilterField label={t("changedBy")} name="by" />
        <FilterField label={t("action")} name="action" />
      </div>
      <Card dim={page.loading}>
        <ErrorNote error={page.error} retry={page.reload} />
        <AuditTable
          lines={page.items}
          empty={
            page.loading ? "…" : t(Object.values(asked).some((text) => text !== "") ? "nothingFits" : "nothingYet")
          }
        />
        <More busy={page.loading} more={page.more} onMore={page.loadMore} />
      </Card>
    </Page>
  );
}

const known = ["ts", "event", "action", "by", "user", "ip", "trace_id", "reason", "before", "after", "id", "subject"];

function AuditTable({ lines, empty }: { readonly lines: readonly LogLine[]; readonly empty: string }) {
  return (
    <Table
      label={t("audit")}
      rows={lines}
      keyOf={(line, index) => `${line.ts} ${index}`}
      empty={empty}
      columns={[
        { head: t("time"), cell: ({ ts }) => <Time iso={ts} /> },
        { head: t("changedBy"), cell: (line) => <span title={textOf(line, "ip")}>{textOf(line, "by")}</span> },
        { head: t("action"), cell: (line) => <span class="mono">{textOf(line, "action", "event")}</span> },
        {
          head: t("whom"),
          cell: (line) => <Whom line={line} />,
        },
        { head: t("whatChanged"), cell: (line) => <Change line={line} /> },
      ]}
    />
  );
}

/** A user, and what of theirs it was; or a group or anything else that was changed. */
function Whom({ line }: { readonly line: LogLine }) {
  const user = textOf(line, "user");
  const subject = textOf(line, "subject");
  const isGroup = textOf(line, "action").startsWith("group.");
  return (
    <>
      {user !== "" && <a href={hrefOf(`/users/${encodeURIComponent(user)}`)}>{user}</a>}
      {subject !== "" && isGroup && <a href={hrefOf(`/groups/${encodeURIComponent(subject)}`)}>{subject}</a>}
      {subject !== "" && !isGroup && <div class={user === "" ? "" : "note"}>{subject}</div>}
    </>
  );
}

/** The fields of something; of what is new or gone only those that say something. */
function fieldsOf(value: unknown, isWhole: boolean): string {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return inline(value);
  const said = Object.entries(value).filter(([, field]) => !isWhole || !isEmpty(field));
  return said.map(([name, field]) => `${name} ${inline(field)}`).join(" · ");
}

function isEmpty(field: unknown): boolean {
  if (typeof field === "object" && field !== null) return Object.keys(field).length === 0;
  return field === null || field === "" || field === false;
}

function Change({ line }: { readonly line: LogLine }) {
  const others = Object.entries(line).filter(([name]) => !known.includes(name));
  const reason = textOf(line, "reason");
  const [before, after] = [line.before ?? null, line.after ?? null];
  const isWhole = before === null || after === null;
  return (
    <>
      {reason !== "" && <div>“{reason}”</div>}
      {before !== null && <div class="note pre">− {fieldsOf(before, isWhole)}</div>}
      {after !== null && <div class="note pre">+ {fieldsOf(after, isWhole)}</div>}
      {others.length > 0 && (
        <div class="note pre">{others.map(([name, value]) => `${name} ${inline(value)}`).join(" · ")}</div>
      )}
    </>
  );
}
