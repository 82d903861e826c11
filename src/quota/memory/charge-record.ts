import { ListReader } from "../../lib/list-reader.ts";
import type { Charge, ChangeNote, Outcome, Per, TokenUsage } from "../ledger.ts";

/** The first charge of a request, at its first data event. */
interface ChargeRecord {
  readonly kind: "charge";
  /** Time of the charge, in ms since the epoch; determines the periods in which it counts. */
  readonly at: number;
  readonly user: string;
  readonly requestId: string;
  readonly model: string;
  /** The id of the API key of the request; undefined for an access token. */
  readonly apiKey?: string | undefined;
  readonly charge: Charge;
}

/** The end of a charged request. Contains everything that later readers may need about it. */
export interface SettleRecord {
  readonly kind: "settle";
  /** `at` of its charge record. */
  readonly at: number;
  readonly settledAt: number;
  readonly user: string;
  readonly requestId: string;
  readonly model: string;
  /** As in its charge record. */
  readonly apiKey?: string | undefined;
  /** The first charge, so that a reader need not remember it. */
  readonly first: Charge;
  readonly final: Charge;
  readonly usage: TokenUsage;
  readonly outcome: Outcome;
  readonly estimated: boolean;
  /** Identifies the price; "" if there is none. */
  readonly price: string;
}

/** A manual change of what counts as used. */
interface AdjustRecord extends ChangeNote {
  readonly kind: "adjust";
  /** As in a charge record. */
  readonly at: number;
  readonly user: string;
  readonly added: Charge;
  readonly taken: Charge;
}

/** A manual restart of a period. */
interface ResetRecord extends ChangeNote {
  readonly kind: "reset";
  /** ms since the epoch. */
  readonly at: number;
  readonly user: string;
  readonly per: Per;
}

/** Written to find out whether the journal accepts records again. Has no meaning. */
export const probeRecord = '["probe"]';

export type LedgerRecord = ChargeRecord | SettleRecord | AdjustRecord | ResetRecord;

/** The format of user names, and so of their files. */
export const userName = /^[a-z0-9][a-z0-9_-]{0,31}$/;

const pers: ReadonlySet<string> = new Set<Per>(["day", "week", "month", "total"]);

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
 *   ["charge", at, user, request id, model, requests, tokens, cost, currency, API key]
 *   ["settle", at, user, request id, model, requests, tokens, cost, currency of the first charge,
 *    requests, tokens, cost, currency of the final one, input, cached, output, reasoning tokens,
 *    outcome, estimated (0 or 1), settled at, price, API key]
 *   ["adjust", at, user, requests, tokens, cost, currency added, requests, tokens, cost, currency taken away, reason, by]
 *   ["reset", at, user, period, reason, by]
 *
 * The API key is left out for access tokens. Until 0.1 it was also left out for keys without limits of their own.
 */

/** A record as one line of JSON, concatenated by hand: JSON.stringify takes four times as long. */
export function encodeLedgerRecord(record: LedgerRecord): string {
  const { kind, at, user } = record;
  const head = `["${kind}",${at},"${user}"`;
  switch (record.kind) {
    case "charge":
      return `${head},${requestOf(record)},${columnsOf(record.charge)}${keyOf(record.apiKey)}]`;
    case "settle": {
      const { first, final, usage, outcome, estimated, settledAt, price } = record;
      const tokens = `${usage.input},${usage.cached},${usage.output},${usage.reasoning}`;
      const end = `"${outcome}",${estimated ? 1 : 0},${settledAt},${quote(price)}${keyOf(record.apiKey)}]`;
      return `${head},${requestOf(record)},${columnsOf(first)},${columnsOf(final)},${tokens},${end}`;
    }
    case "adjust":
      return `${head},${columnsOf(record.added)},${columnsOf(record.taken)},${noteOf(record)}]`;
    case "reset":
      return `${head},"${record.per}",${noteOf(record)}]`;
  }
}

/** Reads a record; undefined for a probe. Throws if it is invalid: its checksum was right, so this is not bit rot. */
export function decodeLedgerRecord(payload: string): LedgerRecord | undefined {
  if (payload === probeRecord) return undefined;
  const columns = new ListReader(payload);
  const record = readRecord(columns);
  columns.end();
  return record;
}

function readRecord(columns: ListReader): LedgerRecord {
  const kind = columns.text();
  const at = columns.amount();
  const user = columns.text();
  if (!userName.test(user)) throw new Error(`${JSON.stringify(user)} is no user name`);
  switch (kind) {
    case "charge": {
      const requestId = columns.text();
      const model = columns.text();
      const charge = readCharge(columns);
      return { kind, at, user, requestId, model, charge, apiKey: readKey(columns) };
    }
    case "settle": {
      const requestId = columns.text();
      const model = columns.text();
      const first = readCharge(columns);
      const final = readCharge(columns);
      const usage = readUsage(columns);
      const outcome = columns.text();
      if (!isOutcome(outcome)) throw new Error(`unknown outcome ${JSON.stringify(outcome)}`);
      const estimated = columns.amount() === 1;
      const settledAt = columns.amount();
      const price = columns.text();
      const apiKey = readKey(columns);
      return { kind, at, settledAt, user, requestId, model, first, final, usage, outcome, estimated, price, apiKey };
    }
    case "adjust": {
      const added = readCharge(columns);
      return { kind, at, user, added, taken: readCharge(columns), reason: columns.text(), by: columns.text() };
    }
    case "reset": {
      const per = columns.text();
      if (!isPer(per)) throw new Error(`unknown period ${JSON.stringify(per)}`);
      return { kind, at, user, per, reason: columns.text(), by: columns.text() };
    }
    default:
      throw new Error(`unknown kind ${JSON.stringify(kind)}`);
  }
}

function readCharge(columns: ListReader): Charge {
  return { requests: columns.amount(), tokens: columns.amount(), cost: columns.amount(), currency: columns.text() };
}

function readKey(columns: ListReader): string | undefined {
  return columns.more() ? columns.text() : undefined;
}

function readUsage(columns: ListReader): TokenUsage {
  const input = columns.amount();
  const cached = columns.amount();
  return { input, cached, output: columns.amount(), reasoning: columns.amount() };
}

function columnsOf({ requests, tokens, cost, currency }: Charge): string {
  return `${requests},${tokens},${cost},${quote(currency)}`;
}

function requestOf({ requestId, model }: { readonly requestId: string; readonly model: string }): string {
  return `${quote(requestId)},${quote(model)}`;
}

function keyOf(apiKey: string | undefined): string {
  return apiKey === undefined ? "" : `,${quote(apiKey)}`;
}

function noteOf({ reason, by }: ChangeNote): string {
  return `${quote(reason)},${quote(by)}`;
}

const plainText = /^[ !#-[\]-~]*$/;

/** A text as JSON: it almost never needs an escape, and JSON.stringify costs more than the check. */
function quote(text: string): string {
  return plainText.test(text) ? `"${text}"` : JSON.stringify(text);
}

function isPer(text: string): text is Per {
  return pers.has(text);
}

function isOutcome(text: string): text is Outcome {
  return outcomes.has(text);
}
