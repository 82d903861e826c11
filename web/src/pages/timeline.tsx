import { useState } from "preact/hooks";
import { get, part } from "../lib/api.ts";
import { inline, numberOf, numberOrNull, textOf } from "../lib/facts.ts";
import { duration, nanoText, shortDecimal } from "../lib/format.ts";
import { formatCount, t } from "../lib/i18n.ts";
import { usePages } from "../lib/pages.ts";
import { route } from "../lib/router.ts";
import type { LogLine, LogPage } from "../lib/types.ts";
import { Card, CopyButton, ErrorNote, Time } from "../ui/basics.tsx";
import { Dialog } from "../ui/dialog.tsx";
import { FactList } from "../ui/fact-list.tsx";
import { FilterField } from "../ui/filters.tsx";
import { More, Table } from "../ui/table.tsx";

/** What a line need not say: who it was is clear, and ids are in its detail. */
const hidden = new Set(["ts", "event", "user", "id", "trace_id", "key_id", "session_id"]);

/** What a user did, newest first. */
export function Timeline({ name }: { readonly name: string }) {
  const type = route.value.query.get("type") ?? "";
  const [open, setOpen] = useState<LogLine>();
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
        empty={page.loading ? "…" : t(type === "" ? "nothingYet" : "nothingFits")}
        columns={[
          {
            head: t("time"),
            cell: (line) => (
              <button
                type="button"
                class="link"
                onClick={() => {
                  setOpen(line);
                }}
              >
                <Time iso={line.ts} />
              </button>
            ),
          },
          { head: t("eventType"), cell: ({ event }) => <span class="mono">{event}</span> },
          { head: t("facts"), cell: (line) => <span class="note">{summaryOf(line)}</span> },
        ]}
      />
      <More busy={page.loading} more={page.more} onMore={page.loadMore} />
      {open !== undefined && (
        <Dialog
          title={textOf(open, "event")}
          onClose={() => {
            setOpen(undefined);
          }}
        >
          <div class="actions">
            <CopyButton text={JSON.stringify(open, undefined, 2)} label="JSON" />
          </div>
          <FactList facts={open} />
        </Dialog>
      )}
    </Card>
  );
}

/** A line in short: of a request what an operator looks for, of anything else its facts. */
function summaryOf(line: LogLine): string {
  if (line.event !== "chat.finished") {
    const facts = Object.entries(line).filter(
      ([name, value]) => !hidden.has(name) && value !== "" && value !== null && value !== 0,
    );
    return facts.map(([name, value]) => `${name} ${inline(value)}`).join(" · ");
  }
  const currency = textOf(line, "currency");
  const tokens = { input: numberOf(line, "input_tokens"), output: numberOf(line, "output_tokens") };
  const facts = [
    textOf(line, "code"),
    textOf(line, "model"),
    textOf(line, "provider"),
    t("tokensInOut", { input: formatCount(tokens.input), output: formatCount(tokens.output) }),
    currency === "" ? "" : `${shortDecimal(nanoText(numberOf(line, "cost_nano")))} ${currency}`,
    duration(numberOrNull(line, "duration_ms")),
    textOf(line, "ip"),
  ];
  return facts.filter((fact) => fact !== "").join(" · ");
}
