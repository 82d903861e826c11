import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../lib/api.ts";
import { inline, numberOf, numberOrNull, textOf } from "../lib/facts.ts";
import { duration, minuteTime, nanoText, relativeTime, shortDecimal, tight, zone } from "../lib/format.ts";
import { formatCount, t, tOr } from "../lib/i18n.ts";
import { onEvents } from "../lib/live.ts";
import { useLoad } from "../lib/load.ts";
import { hrefOf, navigate } from "../lib/router.ts";
import type { Envelope, Facts, Minute, Overview } from "../lib/types.ts";
import { Amount, Card, Empty, ErrorNote, Page } from "../ui/basics.tsx";
import { Chart } from "../ui/chart.tsx";
import { Table } from "../ui/table.tsx";

/** What needs attention, then the last hour by minute, then who and what it was. */
export function OverviewPage() {
  const overview = useLoad("overview", (signal) => get<Overview>("/admin/overview", {}, signal));
  const [minutes, setMinutes] = useState<readonly Minute[]>([]);
  const countedFrom = useRef(0);
  const { data, reload } = overview;
  useEffect(() => {
    if (data === undefined) return;
    setMinutes(data.minutes);
    countedFrom.current = Date.parse(data.at);
  }, [data]);
  useEffect(
    () =>
      onEvents((events) => {
        // A stream that goes on behind its last event repeats what the figures contain already.
        const newer = events.filter(({ time }) => Date.parse(time) >= countedFrom.current);
        setMinutes((before) => withEvents(before, newer));
      }, reload),
    [],
  );
  // The rest of the figures is asked for once a minute, while somebody looks.
  useEffect(() => {
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") reload();
    }, 60_000);
    return () => {
      clearInterval(timer);
    };
  }, []);
  return (
    <Page title={t("overview")} note={t("lastHourIn", { zone: zone() })}>
      <ErrorNote error={overview.error} retry={reload} />
      <Card title={t("attention")}>
        {data?.attention.length === 0 && <Empty>{t("attentionNone")}</Empty>}
        <ul class="attention">
          {data?.attention.map((item, index) => (
            <li key={index}>
              <Attention item={item} />
            </li>
          ))}
        </ul>
      </Card>
      <Tiles now={data?.now} minutes={minutes} />
      <Card title={t("requestsPerMinute")}>
        <MinuteCharts minutes={minutes} />
      </Card>
      <div class="grid two">
        <Card title={t("byModelHour")} dim={overview.loading}>
          <Shares rows={data?.by_model ?? []} name="model" />
        </Card>
        <Card title={t("byProviderHour")} dim={overview.loading}>
          <Shares rows={data?.by_provider ?? []} name="provider" />
        </Card>
      </div>
    </Page>
  );
}

function Tiles({ now, minutes }: { readonly now: Overview["now"] | undefined; readonly minutes: readonly Minute[] }) {
  const total = (value: (minute: Minute) => number): number => minutes.reduce((sum, minute) => sum + value(minute), 0);
  const costs = new Map<string, number>();
  for (const { cost } of minutes) {
    for (const [currency, nano] of Object.entries(cost)) costs.set(currency, (costs.get(currency) ?? 0) + nano);
  }
  const latest = minutes.findLast((minute) => minute.first_token_p95_ms !== null);
  const number = (value: number | undefined): string => (value === undefined ? "–" : formatCount(value));
  const tiles: readonly (readonly [label: string, value: ComponentChildren, scope: string, path: string])[] = [
    [t("inFlight"), number(now?.in_flight), t("now"), "/providers"],
    [t("waitingInLine"), number(now?.waiting), t("now"), "/limits"],
    [t("activeUsers"), number(now?.active_users), t("fiveMinutes"), "/users"],
    [
      t("requests"),
      number(total(({ ok, refused, failed, client_gone: gone }) => ok + refused + failed + gone)),
      t("lastHour"),
      "/requests",
    ],
    [t("failedOnes"), number(total(({ failed }) => failed)), t("lastHour"), "/requests"],
    [t("tokens"), tight(total(({ tokens }) => tokens)), t("lastHour"), "/reports"],
    ...[...costs].map(
      ([currency, nano]) =>
        [t("cost"), <Amount value={nanoText(nano)} currency={currency} />, t("lastHour"), "/reports"] as const,
    ),
    [t("firstTokenP95"), duration(latest?.first_token_p95_ms), t("lastMinute"), "/providers"],
  ];
  return (
    <div class="tiles">
      {tiles.map(([label, value, scope, path], index) => (
        <a key={index} class="tile" href={hrefOf(path)}>
          <span class="note">{label}</span>
          <b>{value}</b>
          <small>{scope}</small>
        </a>
      ))}
    </div>
  );
}

function MinuteCharts({ minutes }: { readonly minutes: readonly Minute[] }) {
  const at = minutes.map((minute) => Date.parse(minute.at));
  const open = (index: number): void => {
    const minute = minutes[index];
    if (minute === undefined) return;
    const to = new Date(Date.parse(minute.at) + 60_000).toISOString();
    navigate(`/requests?from=${encodeURIComponent(minute.at)}&to=${encodeURIComponent(to)}`);
  };
  return (
    <>
      <Chart
        label={t("requestsPerMinute")}
        kind="bars"
        height={220}
        at={at}
        series={[
          { name: t("outcomeOk"), color: "ok", values: minutes.map(({ ok }) => ok) },
          { name: t("outcomeRefused"), color: "refused", values: minutes.map(({ refused }) => refused) },
          { name: t("outcomeFailed"), color: "failed", values: minutes.map(({ failed }) => failed) },
          { name: t("outcomeGone"), color: "gone", values: minutes.map(({ client_gone: gone }) => gone) },
        ]}
        formatX={minuteTime}
        formatY={tight}
        onPick={open}
      />
      <Chart
        label={t("firstTokenP95")}
        kind="line"
        height={90}
        at={at}
        series={[{ name: t("firstTokenP95"), color: "c1", values: minutes.map((minute) => minute.first_token_p95_ms) }]}
        formatX={minuteTime}
        formatY={(value) => duration(value)}
      />
    </>
  );
}

/** Figures of the last hour by model or provider; each opens the requests that it was made of. */
function Shares({ rows, name }: { readonly rows: readonly Facts[]; readonly name: "model" | "provider" }) {
  const hasLatency = rows.some((row) => numberOrNull(row, "first_token_p95_ms") !== null);
  return (
    <Table
      label={t(name)}
      rows={rows}
      keyOf={(row, index) => `${textOf(row, name, "name")} ${index}`}
      empty={t("noRequestsYet")}
      columns={[
        {
          head: t(name),
          cell: (row) => {
            const text = textOf(row, name, "name");
            return <a href={hrefOf(`/requests?${name}=${encodeURIComponent(text)}`)}>{text === "" ? "–" : text}</a>;
          },
        },
        { head: t("requests"), num: true, cell: (row) => formatCount(numberOf(row, "requests", "ok", "asked")) },
        { head: t("failedOnes"), num: true, cell: (row) => formatCount(numberOf(row, "failed")) },
        { head: t("tokens"), num: true, cell: (row) => tight(numberOf(row, "tokens")) },
        ...(hasLatency
          ? [
              {
                head: t("firstTokenP95"),
                num: true,
                cell: (row: Facts) => duration(numberOrNull(row, "first_token_p95_ms")),
              },
            ]
          : []),
        { head: t("cost"), num: true, cell: (row) => <CostOf cost={row.cost} /> },
      ]}
    />
  );
}

function CostOf({ cost }: { readonly cost: unknown }) {
  if (typeof cost !== "object" || cost === null) return <span class="muted">–</span>;
  const entries = Object.entries(cost).filter((entry): entry is [string, number] => typeof entry[1] === "number");
  if (entries.length === 0) return <span class="muted">0</span>;
  return (
    <>
      {entries.map(([currency, nano]) => (
        <span key={currency} class="num" title={`${nanoText(nano)} ${currency}`}>
          {shortDecimal(nanoText(nano))} {currency}{" "}
        </span>
      ))}
    </>
  );
}

/** A thing that needs attention, in words, with the way to where it can be seen to. */
function Attention({ item }: { readonly item: { readonly kind: string } & Facts }) {
  const { kind, ...facts } = item;
  const words: Record<string, string | number> = {};
  for (const [name, value] of Object.entries(facts)) {
    if (typeof value === "string") words[name] = /^\d{4}-\d\d-\d\dT/.test(value) ? relativeTime(value) : value;
    else words[name] = typeof value === "number" ? value : Array.isArray(value) ? value.join(", ") : inline(value);
  }
  const plain = Object.entries(words).map(([name, value]) => `${name} ${value}`);
  const known = tOr(`attention_${kind}`, "");
  const text =
    known === "" ? `${kind}: ${plain.join(" · ")}` : t(`attention_${kind}` as Parameters<typeof t>[0], words);
  const user = textOf(facts, "user");
  const path =
    user !== ""
      ? `/users/${encodeURIComponent(user)}`
      : textOf(facts, "provider") !== ""
        ? "/providers"
        : kind.includes("config")
          ? "/config"
          : kind.includes("login")
            ? "/limits"
            : kind === "simulated"
              ? "/setup"
              : "/events";
  return <a href={hrefOf(path)}>{text}</a>;
}

/** Adds requests that have just ended to their minutes; the window stays an hour long. */
function withEvents(before: readonly Minute[], events: readonly Envelope[]): readonly Minute[] {
  let minutes = before;
  for (const { type, time, data } of events) {
    if (type !== "chat.finished" || minutes.length === 0) continue;
    const at = new Date(Math.floor(Date.parse(time) / 60_000) * 60_000).toISOString();
    const last = minutes.at(-1);
    if (last !== undefined && Date.parse(last.at) < Date.parse(at)) {
      const fresh = { at, ok: 0, refused: 0, failed: 0, client_gone: 0, first_token_p95_ms: null, tokens: 0, cost: {} };
      minutes = [...minutes.slice(minutes.length >= 60 ? 1 : 0), fresh];
    }
    minutes = minutes.map((minute) => (Date.parse(minute.at) === Date.parse(at) ? counted(minute, data) : minute));
  }
  return minutes;
}

function counted(minute: Minute, data: Facts): Minute {
  const code = textOf(data, "code");
  const status = numberOf(data, "status");
  const gone = status === 0 || textOf(data, "outcome") === "client_gone";
  const refused = status >= 400 && status < 500;
  const field = gone ? "client_gone" : code === "ok" ? "ok" : refused ? "refused" : "failed";
  const currency = textOf(data, "currency");
  const first = numberOrNull(data, "first_event_ms");
  return {
    ...minute,
    [field]: minute[field] + 1,
    tokens: minute.tokens + numberOf(data, "input_tokens") + numberOf(data, "output_tokens"),
    ...(first === null ? {} : { first_token_p95_ms: Math.max(first, minute.first_token_p95_ms ?? 0) }),
    ...(currency === ""
      ? {}
      : { cost: { ...minute.cost, [currency]: (minute.cost[currency] ?? 0) + numberOf(data, "cost_nano") } }),
  };
}
