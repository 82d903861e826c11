import { useEffect, useState } from "preact/hooks";
import { get } from "../lib/api.ts";
import { numberOf, numberOrNull, textOf } from "../lib/facts.ts";
import { duration } from "../lib/format.ts";
import { formatCount, t } from "../lib/i18n.ts";
import { onEvents } from "../lib/live.ts";
import { useModels } from "../lib/models.ts";
import { usePages } from "../lib/pages.ts";
import { hrefOf, route, setQuery } from "../lib/router.ts";
import type { Envelope, Facts } from "../lib/types.ts";
import { Card, CopyButton, Empty, ErrorNote, Nano, Page, Snippet, Time } from "../ui/basics.tsx";
import { Dialog } from "../ui/dialog.tsx";
import { FactList } from "../ui/fact-list.tsx";
import { FilterField, UserFilter } from "../ui/filters.tsx";
import { More, Table } from "../ui/table.tsx";
import { curlLine } from "./snippets.ts";

const filters = ["user", "model", "provider", "code", "group", "key_id", "request_id"] as const;

/** Requests of all users, newest first, with filters in the address. What ends meanwhile waits behind a button. */
export function Requests() {
  const { query } = route.value;
  const asked = Object.fromEntries(
    [...filters, "from" as const, "to" as const].map((name) => [name, query.get(name) ?? ""]),
  ) as Readonly<Record<(typeof filters)[number] | "from" | "to", string>>;
  const key = JSON.stringify(asked);
  const page = usePages(key, async (cursor, signal) => {
    const { requests, next_cursor: next } = await get<{
      readonly requests: readonly Facts[];
      readonly next_cursor: string | null;
    }>("/admin/requests", { ...asked, cursor, limit: 50 }, signal);
    return { items: requests, next };
  });
  const [fresh, setFresh] = useState(0);
  useEffect(() => {
    setFresh(0);
    return onEvents((events) => {
      const count = events.filter((event) => event.type === "chat.finished" && fits(event, asked)).length;
      if (count > 0) setFresh((before) => before + count);
    }, page.reload);
  }, [key]);
  const { items, reload } = page;
  // The first request of all turns the empty page into a list by itself.
  useEffect(() => {
    if (fresh > 0 && items.length === 0) {
      setFresh(0);
      reload();
    }
  }, [fresh, items.length]);
  const open = items.find((row) => idOf(row) === query.get("open"));
  const active = Object.values(asked).some((value) => value !== "");
  return (
    <Page title={t("requests")} note={t("requestsNote")}>
      <div class="filters">
        <UserFilter label={t("user")} />
        <FilterField label={t("model")} name="model" maxLength={200} />
        <FilterField label={t("provider")} name="provider" maxLength={200} />
        <FilterField label={t("errorCode")} name="code" maxLength={200} />
        <FilterField label={t("group")} name="group" />
        <FilterField label={t("keyId")} name="key_id" maxLength={200} />
        <FilterField label={t("requestId")} name="request_id" maxLength={200} />
        {asked.from !== "" && (
          <span class="badge">
            {t("from")} <Time iso={asked.from} />
          </span>
        )}
        {active && (
          <button
            type="button"
            onClick={() => {
              setQuery(Object.fromEntries(Object.keys(asked).map((name) => [name, undefined])));
            }}
          >
            {t("clearFilters")}
          </button>
        )}
      </div>
      <Card dim={page.loading}>
        <ErrorNote error={page.error} retry={reload} />
        {fresh > 0 && (
          <button
            type="button"
            class="new-rows"
            onClick={() => {
              setFresh(0);
              reload();
            }}
          >
            {t("newRows", { n: fresh })}
          </button>
        )}
        <RequestTable rows={items} loading={page.loading} filtered={active} />
        <More busy={page.loading} more={page.more} onMore={page.loadMore} />
      </Card>
      {open !== undefined && <Detail row={open} />}
    </Page>
  );
}

function idOf(row: Facts): string {
  return textOf(row, "id", "request_id", "trace_id");
}

function RequestTable(props: {
  readonly rows: readonly Facts[];
  readonly loading: boolean;
  readonly filtered: boolean;
}) {
  const { rows, loading, filtered } = props;
  const [model = "deepseek-flash"] = useModels();
  const empty = loading ? (
    "…"
  ) : filtered ? (
    t("nothingFits")
  ) : (
    <>
      <Empty>{t("noRequestsYet")}</Empty>
      <Snippet label="curl" text={curlLine("$PROXY_KEY", model)} />
    </>
  );
  return (
    <Table
      label={t("requests")}
      rows={rows}
      keyOf={(row, index) => `${idOf(row)} ${index}`}
      empty={empty}
      columns={[
        {
          head: t("time"),
          cell: (row) => (
            <button
              type="button"
              class="link"
              onClick={() => {
                setQuery({ open: idOf(row) });
              }}
            >
              <Time iso={textOf(row, "time", "ts")} />
            </button>
          ),
        },
        { head: t("user"), cell: (row) => <UserLink name={textOf(row, "user")} /> },
        {
          head: t("model"),
          cell: (row) => (
            <span class="clip" title={textOf(row, "model")}>
              {textOf(row, "model")}
            </span>
          ),
        },
        { head: t("provider"), cell: (row) => textOf(row, "provider") },
        { head: t("result"), cell: (row) => <Result row={row} /> },
        {
          head: t("tokensInOutShort"),
          num: true,
          cell: (row) => (
            <span title={t("cachedOf", { n: numberOf(row, "cached_tokens") })}>
              {formatCount(numberOf(row, "input_tokens"))} / {formatCount(numberOf(row, "output_tokens"))}
            </span>
          ),
        },
        {
          head: t("cost"),
          num: true,
          cell: (row) => <Nano nano={numberOf(row, "cost_nano")} currency={textOf(row, "currency")} />,
        },
        { head: t("firstToken"), num: true, cell: (row) => duration(numberOrNull(row, "first_event_ms")) },
        { head: t("took"), num: true, cell: (row) => duration(numberOrNull(row, "duration_ms")) },
      ]}
    />
  );
}

function UserLink({ name }: { readonly name: string }) {
  return name === "" ? <>–</> : <a href={hrefOf(`/users/${encodeURIComponent(name)}`)}>{name}</a>;
}

function Result({ row }: { readonly row: Facts }) {
  const code = textOf(row, "code");
  const retries = numberOf(row, "retries");
  return (
    <>
      <span class={`badge ${code === "ok" ? "good" : numberOf(row, "status") >= 500 ? "bad" : "warn"}`}>{code}</span>
      {retries > 0 && <small> {t("retried", { n: retries })}</small>}
      {textOf(row, "estimated") === "true" && <small> {t("estimated")}</small>}
    </>
  );
}

/** All that is known of one request. */
function Detail({ row }: { readonly row: Facts }) {
  const id = textOf(row, "request_id", "trace_id", "id");
  return (
    <Dialog
      title={t("request")}
      onClose={() => {
        setQuery({ open: undefined });
      }}
    >
      <div class="actions">
        <CopyButton text={id} label={t("copyRequestId")} />
        <CopyButton text={window.location.href} label={t("copyLink")} />
        <CopyButton text={JSON.stringify(row, undefined, 2)} label="JSON" />
      </div>
      <FactList facts={row} />
    </Dialog>
  );
}

function fits(event: Envelope, asked: Readonly<Record<string, string>>): boolean {
  const facts: Facts = {
    ...event.data,
    user: event.user,
    group: event.group,
    key_id: event.key_id,
    request_id: event.request_id,
  };
  return (
    filters.every((name) => asked[name] === "" || textOf(facts, name) === asked[name]) &&
    (asked.to === "" || event.time < (asked.to ?? ""))
  );
}
