import { useEffect, useState } from "preact/hooks";
import { clockTime, exactTime } from "../lib/format.ts";
import { inline } from "../lib/facts.ts";
import { t } from "../lib/i18n.ts";
import { onEvents } from "../lib/live.ts";
import { hrefOf, route, setQuery } from "../lib/router.ts";
import type { Envelope } from "../lib/types.ts";
import { Card, Page } from "../ui/basics.tsx";
import { Dialog } from "../ui/dialog.tsx";
import { FactList } from "../ui/fact-list.tsx";
import { FilterField } from "../ui/filters.tsx";
import { Table } from "../ui/table.tsx";

const kept = 1_000;
const shown = 200;

/** Events as they happen. New ones wait behind a button, unless the list is told to follow. */
export function Events() {
  const { query } = route.value;
  const [all, setAll] = useState<readonly Envelope[]>([]);
  const [until, setUntil] = useState<string>();
  const [open, setOpen] = useState<Envelope>();
  const follow = query.get("follow") === "1";
  useEffect(
    () =>
      onEvents((events) => {
        setAll((before) => [...[...events].reverse(), ...before].slice(0, kept));
      }),
    [],
  );
  const type = query.get("type") ?? "";
  const user = query.get("user") ?? "";
  const rows = all.filter((event) => matches(event.type, type) && (user === "" || event.user === user));
  const from =
    follow || until === undefined
      ? 0
      : Math.max(
          0,
          rows.findIndex(({ id }) => id === until),
        );
  // The first events are shown at once.
  useEffect(() => {
    if (until === undefined && rows.length > 0) setUntil(rows[0]?.id);
  }, [rows.length]);
  return (
    <Page
      title={t("events")}
      note={t("eventsNote")}
      actions={
        <button
          type="button"
          aria-pressed={follow}
          onClick={() => {
            setUntil(rows[0]?.id);
            setQuery({ follow: follow ? undefined : "1" });
          }}
        >
          {t("follow")}
        </button>
      }
    >
      <div class="filters">
        <FilterField label={t("eventType")} name="type" search live />
        <FilterField label={t("user")} name="user" live />
      </div>
      <Card>
        {from > 0 && (
          <button
            type="button"
            class="new-rows"
            onClick={() => {
              setUntil(rows[0]?.id);
            }}
          >
            {t("newRows", { n: from })}
          </button>
        )}
        <Table
          label={t("events")}
          rows={rows.slice(from, from + shown)}
          keyOf={({ id }) => id}
          empty={t("waitingForEvents")}
          columns={[
            {
              head: t("time"),
              cell: (event) => (
                <button
                  type="button"
                  class="link"
                  title={exactTime(event.time)}
                  onClick={() => {
                    setOpen(event);
                  }}
                >
                  {clockTime(Date.parse(event.time))}
                </button>
              ),
            },
            { head: t("eventType"), cell: (event) => <span class="mono">{event.type}</span> },
            {
              head: t("user"),
              cell: (event) =>
                event.user === null ? (
                  ""
                ) : (
                  <a href={hrefOf(`/users/${encodeURIComponent(event.user)}`)}>{event.user}</a>
                ),
            },
            {
              head: t("facts"),
              cell: (event) => (
                <span class="note">
                  {Object.entries(event.data)
                    .slice(0, 6)
                    .map(([name, value]) => `${name} ${inline(value)}`)
                    .join(" · ")}
                </span>
              ),
            },
          ]}
        />
      </Card>
      {open !== undefined && (
        <Dialog
          title={open.type}
          onClose={() => {
            setOpen(undefined);
          }}
        >
          <FactList facts={{ ...open, ...open.data, data: undefined }} />
        </Dialog>
      )}
    </Page>
  );
}

/** chat.* fits chat.finished; a part of a name fits too. */
function matches(type: string, wanted: string): boolean {
  return wanted.endsWith("*") ? type.startsWith(wanted.slice(0, -1)) : type.includes(wanted);
}
