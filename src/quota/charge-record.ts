import { ListReader } from "../lib/list-reader.ts";
import type { Charge, Outcome, TokenUsage } from "./ledger.ts";

/** The first charge of a request, at its first data event. */
interface ChargeRecord {
  readonly kind: "charge";
  /** When it was made, in ms since the epoch; decides the periods in which it counts. */
  readonly at: number;
  readonly user: string;
  readonly requestId: string;
  readonly model: string;
  readonly charge: Charge;
}

/** The end of a request that had been charged. Tells all that later readers may want to know about it. */
interface SettleRecord {
  readonly kind: "settle";
  /** `at` of its charge record. */
  readonly at: number;
  readonly settledAt: number;
  readonly user: string;
  readonly requestId: string;
  readonly model: string;
  /** What had been charged, so that a reader need not remember it. */
  readonly first: Charge;
  readonly final: Charge;
  readonly usage: TokenUsage;
  readonly outcome: Outcome;
  readonly estimated: boolean;
  /** Names the price; "" where there is none. */
  readonly price: string;
}

/** Written to find out whether the journal takes records again. Means nothing. */
export const probeRecord = '["probe"]';

export type LedgerRecord = ChargeRecord | SettleRecord;

/** What names of users, and so of their files, look like. */
export const userName = /^[a-z0-9][a-z0-9_-]{0,31}$/;

const outcomes: ReadonlySet<string> = new Set<Outcome>([
  "completed",
  "client_gone",
  "upstream_failed",
  "reader_stalled",
  "shutdown",
  "refused",
  "quota_cut",
]);

/*
 * Records are JSON arrays:
 *
 *   ["charge", at, user, request id, model, requests, tokens, cost, currency]
 *   ["settle", at, user, request id, model, requests, tokens, cost, currency of the first charge,
 *    requests, tokens, cost, currency of the final one, input, cached, output, reasoning tokens,
 *    outcome, estimated (0 or 1), settled at, price]
 */

/** A record as one line of JSON, put together by hand: JSON.stringify takes four times as long. */
export function encodeLedgerRecord(record: LedgerRecord): string {
  const { kind, at, user, requestId, model } = record;
  const head = `["${kind}",${at},"${user}",${JSON.stringify(requestId)},${JSON.stringify(model)}`;
  if (record.kind === "charge") return `${head},${columnsOf(record.charge)}]`;
  const { first, final, usage, outcome, estimated, settledAt, price } = record;
  const tokens = `${usage.input},${usage.cached},${usage.output},${usage.reasoning}`;
  const end = `"${outcome}",${estimated ? 1 : 0},${settledAt},${JSON.stringify(price)}]`;
  return `${head},${columnsOf(first)},${columnsOf(final)},${tokens},${end}`;
}

/** Reads a record; undefined for a probe. Throws where it is none: its checksum was right, so this is not bit rot. */
export function decodeLedgerRecord(payload: string): LedgerRecord | undefined {
  if (payload === probeRecord) return undefined;
  const columns = new ListReader(payload);
  const kind = columns.text();
  const at = columns.amount();
  const user = columns.text();
  if (!userName.test(user)) throw new Error(`${JSON.stringify(user)} is no user name`);
  const requestId = columns.text();
  const model = columns.text();
  const first = readCharge(columns);
  if (kind === "charge") {
    columns.end();
    return { kind, at, user, requestId, model, charge: first };
  }
  if (kind !== "settle") throw new Error(`unknown kind ${JSON.stringify(kind)}`);
  const final = readCharge(columns);
  const usage = readUsage(columns);
  const outcome = columns.text();
  if (!isOutcome(outcome)) throw new Error(`unknown outcome ${JSON.stringify(outcome)}`);
  const estimated = columns.amount() === 1;
  const settledAt = columns.amount();
  const price = columns.text();
  columns.end();
  return { kind, at, settledAt, user, requestId, model, first, final, usage, outcome, estimated, price };
}

function readCharge(columns: ListReader): Charge {
  return { requests: columns.amount(), tokens: columns.amount(), cost: columns.amount(), currency: columns.text() };
}

function readUsage(columns: ListReader): TokenUsage {
  const input = columns.amount();
  const cached = columns.amount();
  return { input, cached, output: columns.amount(), reasoning: columns.amount() };
}

function columnsOf({ requests, tokens, cost, currency }: Charge): string {
  return `${requests},${tokens},${cost},${JSON.stringify(currency)}`;
}

function isOutcome(text: string): text is Outcome {
  return outcomes.has(text);
}
