import { csvLine } from "../../lib/csv.ts";
import { createIsoTime } from "../../lib/dates.ts";
import { formatNano } from "../../lib/money.ts";
import type { ExportedRow, ExportItem } from "./usage-export.ts";

export const exportFormats = ["ndjson", "csv"] as const;

/** How an export is written. */
export type ExportFormat = (typeof exportFormats)[number];

/** The size of the pieces in which an export is sent, in characters. */
const pieceLength = 16 << 10;

/** The columns of CSV, and the names of a row in JSON. `per`, `reason` and `by` belong to changes by hand. */
const columns = [
  "kind",
  "request_id",
  "time",
  "settled_at",
  "user",
  "group",
  "key_id",
  "model",
  "provider",
  "input_tokens",
  "cached_tokens",
  "output_tokens",
  "reasoning_tokens",
  "requests",
  "tokens",
  "price",
  "cost",
  "cost_nano",
  "currency",
  "outcome",
  "estimated",
  "per",
  "reason",
  "by",
] as const;

/**
 * Items as text, in pieces of some kilobytes. The last line says that it is the last, and how many rows there were; before
 * it there is a line for each thing that is missing. In CSV these are rows of the kinds `error` and `end`.
 */
export async function* exportText(items: AsyncIterable<ExportItem>, format: ExportFormat): AsyncGenerator<string> {
  const isoTime = createIsoTime();
  const lineOf = format === "csv" ? csvOf : jsonOf;
  let piece = format === "csv" ? csvLine(columns) : "";
  for await (const item of items) {
    piece += lineOf(item, isoTime);
    if (piece.length < pieceLength) continue;
    yield piece;
    piece = "";
  }
  yield piece;
}

type IsoTime = (ms: number) => string;

function jsonOf(item: ExportItem, isoTime: IsoTime): string {
  return `${JSON.stringify(objectOf(item, isoTime))}\n`;
}

function objectOf(item: ExportItem, isoTime: IsoTime): object {
  switch (item.kind) {
    case "row":
      return rowObject(item.row, isoTime);
    case "problem":
      return { kind: "error", error: item.message };
    case "end": {
      const { rows, complete, keptFrom } = item;
      return { end: true, rows, complete, kept_from: keptFrom === undefined ? null : isoTime(keptFrom) };
    }
  }
}

function rowObject(row: ExportedRow, isoTime: IsoTime): object {
  const { kind, at, settledAt, user, group, usage, requests, tokens, cost, currency } = row;
  const time = isoTime(at);
  const amounts = { requests, tokens, cost: formatNano(cost), cost_nano: cost, currency };
  if (kind !== "request") {
    const { per, reason, by } = row;
    const change = kind === "reset" ? { per } : amounts;
    return { kind, time, user: user || null, group: group || null, ...change, reason, by };
  }
  return {
    kind,
    request_id: row.requestId,
    time,
    settled_at: settledAt === null ? null : isoTime(settledAt),
    user,
    group: group || null,
    key_id: row.apiKey || null,
    model: row.model,
    provider: row.provider || null,
    input_tokens: usage.input,
    cached_tokens: usage.cached,
    output_tokens: usage.output,
    reasoning_tokens: usage.reasoning,
    ...amounts,
    price: row.price || null,
    outcome: row.outcome,
    estimated: row.estimated,
  };
}

function csvOf(item: ExportItem, isoTime: IsoTime): string {
  if (item.kind === "row") return csvLine(cellsOf(item.row, isoTime));
  const [outcome, reason] =
    item.kind === "problem" ? ["", item.message] : [item.complete ? "complete" : "incomplete", `${item.rows} rows`];
  const kind = item.kind === "problem" ? "error" : "end";
  return csvLine(columns.map((name) => ({ kind, outcome, reason })[name as string] ?? ""));
}

function cellsOf(row: ExportedRow, isoTime: IsoTime): readonly (string | number)[] {
  const { usage, cost } = row;
  return [
    row.kind,
    row.requestId,
    isoTime(row.at),
    row.settledAt === null ? "" : isoTime(row.settledAt),
    row.user,
    row.group,
    row.apiKey,
    row.model,
    row.provider,
    usage.input,
    usage.cached,
    usage.output,
    usage.reasoning,
    row.requests,
    row.tokens,
    row.price,
    formatNano(cost),
    cost,
    row.currency,
    row.outcome,
    row.estimated ? 1 : 0,
    row.per,
    row.reason,
    row.by,
  ];
}
