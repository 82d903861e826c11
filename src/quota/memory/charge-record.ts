import { NewerVersionError } from "../../lib/journal/journal-format.ts";
import { ListReader } from "../../lib/list-reader.ts";
import { accountName, groupAccount, isGroupAccount, userName } from "../accounts.ts";
import { noCharge } from "../amounts.ts";
import type { Charge, ChangeNote, TokenUsage } from "../ledger.ts";
import { metricNames, sinceVersion } from "../metrics.ts";
import { isOutcome, type Outcome } from "../outcomes.ts";
import { isPer, type Per } from "../periods.ts";

/** How a request counts for a group as well. */
export interface GroupShare {
  readonly name: string;
  /** As `at`, for the group's periods: after a clock has stepped back, these may have begun later than the user's. */
  readonly at: number;
}

/** Where a record stands in the logs that all processes share. */
export interface LogPosition {
  /** The log: `TAG.EPOCH`. A tag's log begins anew, with another epoch, after a loss. */
  readonly log: string;
  /** The record's number in it. */
  readonly seq: number;
}

/** What a record has that was read from the shared log. */
interface Logged {
  /** Undefined for one of this process. */
  readonly from?: LogPosition | undefined;
}

/** The first charge of a request, at its first data event. */
export interface ChargeRecord extends Logged {
  readonly kind: "charge";
  /** Time of the charge, in ms since the epoch; determines the periods in which it counts. */
  readonly at: number;
  readonly user: string;
  readonly requestId: string;
  readonly model: string;
  /** The id of the API key of the request; undefined for an access token. */
  readonly apiKey?: string | undefined;
  /** The group that it counts for as well; undefined: none. */
  readonly group?: GroupShare | undefined;
  readonly charge: Charge;
  /** The provider that sent it; undefined in records of versions before 4. */
  readonly provider?: string | undefined;
  /** As in a settle record; undefined in records of versions before 4. */
  readonly price?: string | undefined;
}

/** The end of a charged request. Contains everything that later readers may need about it. */
export interface SettleRecord extends Logged {
  readonly kind: "settle";
  /** `at` of its charge record. */
  readonly at: number;
  readonly settledAt: number;
  readonly user: string;
  readonly requestId: string;
  readonly model: string;
  /** As in its charge record. */
  readonly apiKey?: string | undefined;
  /** As in its charge record. */
  readonly group?: GroupShare | undefined;
  /** The first charge, so that a reader need not remember it. */
  readonly first: Charge;
  readonly final: Charge;
  readonly usage: TokenUsage;
  readonly outcome: Outcome;
  readonly estimated: boolean;
  /** Identifies the price; "" if there is none. */
  readonly price: string;
  /** As in its charge record. */
  readonly provider?: string | undefined;
}

/** A manual change of what counts as used. */
interface AdjustRecord extends ChangeNote, Logged {
  readonly kind: "adjust";
  /** As in a charge record. */
  readonly at: number;
  /** The account, which may be a group's. */
  readonly user: string;
  readonly added: Charge;
  readonly taken: Charge;
}

/** A manual restart of a period. */
interface ResetRecord extends ChangeNote, Logged {
  readonly kind: "reset";
  /** ms since the epoch. */
  readonly at: number;
  /** As of an adjustment. */
  readonly user: string;
  readonly per: Per;
}

/** Written to find out whether the journal accepts records again. Has no meaning. */
export const probeRecord = '["probe"]';

export type LedgerRecord = ChargeRecord | SettleRecord | AdjustRecord | ResetRecord;

/*
 * Records are JSON arrays:
 *
 *   ["charge", at, user, request id, model, CHARGE, API key, group, time for the group]
 *   ["settle", at, user, request id, model, CHARGE (the first), CHARGE (the final one), input, cached, output,
 *    reasoning tokens, outcome, estimated (0 or 1), settled at, price, API key, group, time for the group]
 *   ["adjust", at, account, CHARGE (added), CHARGE (taken away), reason, by]
 *   ["reset", at, account, period, reason, by]
 *
 * A CHARGE is several columns: in version 1 requests, tokens, cost, currency. The API key is left out for access
 * tokens, or "" before a group. Until 0.1 it was also left out for keys without limits of their own. The group is left
 * out for requests in none. An account is a user, or a group behind an @.
 *
 * Versions: a kind without a number, such as "charge", is of version 1; "charge.2" is of version 2. A version adds the
 * columns of metrics with that `since` behind the currency, so that older records keep their meaning: what has no
 * column was 0. Version 2 adds groups: only records that concern a group are of it, so that an older program reads all
 * others. Version 3 appends the log and the number that a record has in it, behind an API key and a group
 * that may both be "": only records of shared logs are of it. Version 4 adds the provider, and to a charge the price:
 *
 *   ["charge.4", ... CHARGE, API key or "", group or "", time for the group or 0, provider, price]
 *   ["settle.4", ... price, API key or "", group or "", time for the group or 0, provider]
 *
 * and behind these, for records of shared logs, what version 3 appends. Only charges and settlements whose provider is
 * known are of it. A program refuses the records of a version that it doesn't know.
 */

/** Columns of a CHARGE before the currency. */
const firstMetrics = metricNames.filter((name) => sinceVersion(name) === 1);
/** Columns behind it, by version. */
const laterMetrics = metricNames
  .filter((name) => sinceVersion(name) > 1)
  .sort((a, b) => sinceVersion(a) - sinceVersion(b));

/** The version of snapshots, and of records that concern no group: that of the newest metric. */
export const recordVersion = Math.max(...metricNames.map(sinceVersion));
/** The first version whose records may concern groups. */
const groupVersion = 2;
/** The first version whose records may come from the shared log. */
const loggedVersion = 3;
/** The first version whose records name the provider. */
const providerVersion = 4;
/** The newest version that this program writes and reads. */
export const latestVersion = Math.max(recordVersion, providerVersion);
const suffixes = {
  others: suffixOf(recordVersion),
  groups: suffixOf(Math.max(recordVersion, groupVersion)),
  logged: suffixOf(Math.max(recordVersion, loggedVersion)),
  provider: suffixOf(Math.max(recordVersion, providerVersion)),
};

/** A record as one line of JSON, concatenated by hand: JSON.stringify takes four times as long. */
export function encodeLedgerRecord(record: LedgerRecord): string {
  const { kind, at, user } = record;
  const concernsGroup = "group" in record ? record.group !== undefined : isGroupAccount(user);
  const version =
    "provider" in record && record.provider !== undefined
      ? "provider"
      : record.from !== undefined
        ? "logged"
        : concernsGroup
          ? "groups"
          : "others";
  const head = `["${kind}${suffixes[version]}",${at},"${user}"`;
  switch (record.kind) {
    case "charge":
      return `${head},${requestOf(record)},${columnsOf(record.charge)}${sourceOf(record)}]`;
    case "settle": {
      const { first, final, usage, outcome, estimated, settledAt, price } = record;
      const tokens = `${usage.input},${usage.cached},${usage.output},${usage.reasoning}`;
      const end = `"${outcome}",${estimated ? 1 : 0},${settledAt},${quote(price)}${sourceOf(record)}]`;
      return `${head},${requestOf(record)},${columnsOf(first)},${columnsOf(final)},${tokens},${end}`;
    }
    case "adjust":
      return `${head},${columnsOf(record.added)},${columnsOf(record.taken)},${noteOf(record)}${positionOf(record)}]`;
    case "reset":
      return `${head},"${record.per}",${noteOf(record)}${positionOf(record)}]`;
  }
}

/** The same record as the group's account counts it: there the member stands in the place of the API key. */
export function asOfGroup<Of extends ChargeRecord | SettleRecord>(record: Of, { name, at }: GroupShare): Of {
  return { ...record, at, user: groupAccount(name), apiKey: record.user, group: undefined };
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
  const isRequest = kind === "charge" || kind === "settle";
  const names = isRequest || version < groupVersion ? userName : accountName;
  if (!names.test(user)) throw new Error(`${JSON.stringify(user)} is no user name`);
  switch (kind) {
    case "charge": {
      const requestId = columns.text();
      const model = columns.text();
      const charge = readCharge(columns, version);
      const apiKey = readKey(columns);
      const group = readGroup(columns, version);
      const provider = readProvider(columns, version);
      const price = provider === undefined ? undefined : columns.text();
      const from = readPosition(columns, version);
      return { kind, at, user, requestId, model, charge, apiKey, group, provider, price, from };
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
      const group = readGroup(columns, version);
      const provider = readProvider(columns, version);
      // Written out in full: spreading objects costs microseconds here.
      return {
        kind,
        at,
        settledAt,
        user,
        requestId,
        model,
        first,
        final,
        usage,
        outcome,
        estimated,
        price,
        apiKey,
        group,
        provider,
        from: readPosition(columns, version),
      };
    }
    case "adjust": {
      const added = readCharge(columns, version);
      const taken = readCharge(columns, version);
      const note = { reason: columns.text(), by: columns.text() };
      return { kind, at, user, added, taken, ...note, from: readPosition(columns, version) };
    }
    case "reset": {
      const per = columns.text();
      if (!isPer(per)) throw new Error(`unknown period ${JSON.stringify(per)}`);
      const note = { reason: columns.text(), by: columns.text() };
      return { kind, at, user, per, ...note, from: readPosition(columns, version) };
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
  if (version > latestVersion) throw new NewerVersionError(version, latestVersion);
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
  return (columns.more() ? columns.text() : "") || undefined;
}

function readGroup(columns: ListReader, version: number): GroupShare | undefined {
  if (version < groupVersion || !columns.more()) return undefined;
  const name = columns.text();
  if (name === "" && version >= loggedVersion) {
    columns.amount();
    return undefined;
  }
  if (!userName.test(name)) throw new Error(`${JSON.stringify(name)} is no name of a group`);
  return { name, at: columns.amount() };
}

function readProvider(columns: ListReader, version: number): string | undefined {
  return version < providerVersion ? undefined : columns.text();
}

function readPosition(columns: ListReader, version: number): LogPosition | undefined {
  // Records of version 3 are all of shared logs; from version 4 on some are.
  if (version < loggedVersion || (version > loggedVersion && !columns.more())) return undefined;
  return { log: columns.text(), seq: columns.amount() };
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

function sourceOf(record: ChargeRecord | SettleRecord): string {
  const { apiKey, group, from, provider } = record;
  if (from !== undefined || provider !== undefined) {
    const price = record.kind === "charge" ? `,${quote(record.price ?? "")}` : "";
    const source = provider === undefined ? "" : `,${quote(provider)}${price}`;
    return `,${quote(apiKey ?? "")},"${group?.name ?? ""}",${group?.at ?? 0}${source}${positionOf(record)}`;
  }
  if (group !== undefined) return `,${quote(apiKey ?? "")},"${group.name}",${group.at}`;
  return apiKey === undefined ? "" : `,${quote(apiKey)}`;
}

function positionOf({ from }: Logged): string {
  return from === undefined ? "" : `,"${from.log}",${from.seq}`;
}

function suffixOf(version: number): string {
  return version === 1 ? "" : `.${version}`;
}

function noteOf({ reason, by }: ChangeNote): string {
  return `${quote(reason)},${quote(by)}`;
}

const plainText = /^[ !#-[\]-~]*$/;

/** A text as JSON: it almost never needs an escape, and JSON.stringify costs more than the check. */
function quote(text: string): string {
  return plainText.test(text) ? `"${text}"` : JSON.stringify(text);
}
