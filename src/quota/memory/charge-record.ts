import { NewerVersionError } from "../../lib/journal/journal-format.ts";
import { ListReader } from "../../lib/list-reader.ts";
import { noCharge } from "../amounts.ts";
import type { Charge, ChangeNote, Outcome, TokenUsage } from "../ledger.ts";
import { metricNames, sinceVersion } from "../metrics.ts";
import { isPer, type Per } from "../periods.ts";

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
 *   ["charge", at, user, request id, model, CHARGE, API key]
 *   ["settle", at, user, request id, model, CHARGE (the first), CHARGE (the final one), input, cached, output,
 *    reasoning tokens, outcome, estimated (0 or 1), settled at, price, API key]
 *   ["adjust", at, user, CHARGE (added), CHARGE (taken away), reason, by]
 *   ["reset", at, user, period, reason, by]
 *
 * A CHARGE is several columns: in version 1 requests, tokens, cost, currency. The API key is left out for access
 * tokens. Until 0.1 it was also left out for keys without limits of their own.
 *
 * Versions: a kind without a number, such as "charge", is of version 1; "charge.2" is of version 2. A version adds the
 * columns of metrics with that `since` behind the currency, so that older records keep their meaning: what has no
 * column was 0. A program refuses the records of a version that it doesn't know.
 */

/** Columns of a CHARGE before the currency. */
const firstMetrics = metricNames.filter((name) => sinceVersion(name) === 1);
/** Columns behind it, by version. */
const laterMetrics = metricNames
  .filter((name) => sinceVersion(name) > 1)
  .sort((a, b) => sinceVersion(a) - sinceVersion(b));

/** The version of the records that this program writes. */
export const recordVersion = Math.max(...metricNames.map(sinceVersion));
const versionSuffix = recordVersion === 1 ? "" : `.${recordVersion}`;

/** A record as one line of JSON, concatenated by hand: JSON.stringify takes four times as long. */
export function encodeLedgerRecord(record: LedgerRecord): string {
  const { kind, at, user } = record;
  const head = `["${kind}${versionSuffix}",${at},"${user}"`;
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
  const [kind, version] = readKind(columns.text());
  const at = columns.amount();
  const user = columns.text();
  if (!userName.test(user)) throw new Error(`${JSON.stringify(user)} is no user name`);
  switch (kind) {
    case "charge": {
      const requestId = columns.text();
      const model = columns.text();
      const charge = readCharge(columns, version);
      return { kind, at, user, requestId, model, charge, apiKey: readKey(columns) };
    }
    case "settle": {
      const requestId = columns.text();
      const model = columns.text();
      const first = readCharge(columns, version);
      const final = readCharge(columns, version);
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
      const added = readCharge(columns, version);
      return { kind, at, user, added, taken: readCharge(columns, version), reason: columns.text(), by: columns.text() };
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

/** The kind of a record, and its version. Throws NewerVersionError. */
function readKind(text: string): readonly [string, number] {
  if (!text.includes(".")) return [text, 1];
  const [, kind = text, suffix = "1"] = /^(\w+)\.([1-9]\d{0,5})$/.exec(text) ?? [];
  const version = Number(suffix);
  if (version > recordVersion) throw new NewerVersionError(version, recordVersion);
  return [kind, version];
}

function readCharge(columns: ListReader, version: number): Charge {
  const charge: { -readonly [Key in keyof Charge]: Charge[Key] } = noCharge("");
  for (const metric of firstMetrics) charge[metric] = columns.amount();
  charge.currency = columns.text();
  for (const metric of laterMetrics) if (sinceVersion(metric) <= version) charge[metric] = columns.amount();
  return charge;
}

function readKey(columns: ListReader): string | undefined {
  return columns.more() ? columns.text() : undefined;
}

function readUsage(columns: ListReader): TokenUsage {
  const input = columns.amount();
  const cached = columns.amount();
  return { input, cached, output: columns.amount(), reasoning: columns.amount() };
}

function columnsOf(charge: Charge): string {
  const { requests, tokens, cost, currency } = charge;
  let columns = `${requests},${tokens},${cost},${quote(currency)}`;
  for (const metric of laterMetrics) columns += `,${charge[metric]}`;
  return columns;
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

function isOutcome(text: string): text is Outcome {
  return outcomes.has(text);
}
