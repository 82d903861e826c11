import { z } from "zod";
import type { LedgerRecord } from "../quota/memory/charge-record.ts";
import { metricNames } from "../quota/metrics.ts";
import { outcomes } from "../quota/outcomes.ts";
import { periodNames } from "../quota/periods.ts";
import type { LogEntry } from "./log-page.ts";

/** What is needed to tell a record, and to write it again. */
export type LoggedRecord = Pick<LogEntry, "seq" | "kind" | "at" | "body" | "origin">;

/** A change of a document, as the log has it. */
export interface DocumentRecord {
  readonly kind: string;
  readonly name: string;
  /** null: removed. */
  readonly text: string | null;
}

const amount = z.int().min(0);
const charge = z.object({
  ...(Object.fromEntries(metricNames.map((name) => [name, amount])) as Record<
    (typeof metricNames)[number],
    typeof amount
  >),
  currency: z.string(),
});
const request = {
  at: amount,
  user: z.string(),
  requestId: z.string(),
  model: z.string(),
  apiKey: z.string().optional(),
  group: z.string().optional(),
  provider: z.string().optional(),
};
const note = { reason: z.string(), by: z.string() };
const bodies = {
  charge: z.object({ ...request, charge, price: z.string().optional() }),
  settle: z.object({
    ...request,
    first: charge,
    final: charge,
    usage: z.object({ input: amount, cached: amount, output: amount, reasoning: amount }),
    outcome: z.enum(outcomes),
    estimated: z.boolean(),
    price: z.string(),
  }),
  adjust: z.object({ at: amount, user: z.string(), added: charge, taken: charge, ...note }),
  reset: z.object({ at: amount, user: z.string(), per: z.enum(periodNames), ...note }),
};
const documentBody = z.object({ kind: z.string(), name: z.string(), text: z.string().nullable() });

/** The record of the ledger; undefined for one that counts nothing. Throws if it cannot be read. */
export function ledgerRecordOf({ kind, at: writtenAt, body }: LoggedRecord): LedgerRecord | undefined {
  switch (kind) {
    case "charge": {
      const { group, ...record } = bodies.charge.parse(JSON.parse(body));
      return { kind, ...record, group: group === undefined ? undefined : { name: group, at: record.at } };
    }
    case "settle": {
      const { group, ...record } = bodies.settle.parse(JSON.parse(body));
      const share = group === undefined ? undefined : { name: group, at: record.at };
      return { kind, ...record, settledAt: Math.max(writtenAt, record.at), group: share };
    }
    case "adjust":
      return { kind, ...bodies.adjust.parse(JSON.parse(body)) };
    case "reset":
      return { kind, ...bodies.reset.parse(JSON.parse(body)) };
    default:
      return undefined;
  }
}

/** The document's change; undefined if it is another record. Throws if it cannot be read. */
export function documentOf({ kind, body }: LoggedRecord): DocumentRecord | undefined {
  return kind === "doc" ? documentBody.parse(JSON.parse(body)) : undefined;
}

/** The record of the log that a record of the journal came from. */
export function loggedRecordOf(record: LedgerRecord): LoggedRecord {
  const seq = record.from?.seq ?? 0;
  const common = { seq, origin: seq, kind: record.kind };
  const at = record.kind === "settle" ? record.settledAt : record.at;
  const group = "group" in record ? record.group?.name : undefined;
  const body = { ...record, kind: undefined, from: undefined, settledAt: undefined, group };
  return { ...common, at, body: JSON.stringify(body) };
}

/** How a request's record begins where nothing in it is escaped: read alone, since this is asked of each several times. */
const requestStart = /^\{"at":(\d{1,16}),"id":"[^"\\]*","user":"([^"\\]*)","requestId":"([^"\\]*)",/;

/**
 * What tells a record from all others of its tag, wherever it is; undefined if it cannot be told. Throws if it is no
 * JSON.
 */
export function identityOf(entry: LoggedRecord): string | undefined {
  switch (entry.kind) {
    case "mark":
      return `mark:${entry.at}:${entry.origin}`;
    case "charge":
    case "settle": {
      const start = requestStart.exec(entry.body);
      // Not by its request id alone: a client may send the same request id twice.
      if (start !== null) return `${entry.kind}:${start[2] ?? ""}:${start[3] ?? ""}:${start[1] ?? ""}`;
      const { user, requestId, at } = JSON.parse(entry.body) as Readonly<Record<string, unknown>>;
      if (typeof user !== "string" || typeof requestId !== "string" || typeof at !== "number") return undefined;
      return `${entry.kind}:${user}:${requestId}:${at}`;
    }
    case "doc":
      return `doc:${entry.at}:${entry.body}`;
    default: {
      // The order of its members may differ, and the journal has no ids.
      const found = Object.entries(JSON.parse(entry.body) as object).filter(([name]) => name !== "id");
      const members = found.sort(([a], [b]) => (a < b ? -1 : 1));
      return `${entry.kind}:${JSON.stringify(members)}`;
    }
  }
}
