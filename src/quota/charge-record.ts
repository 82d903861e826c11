import { isAmount } from "../lib/money.ts";
import type { Charge, Outcome, TokenUsage } from "./ledger.ts";

/** The first charge of a request, at its first data event. */
export interface ChargeRecord {
  readonly kind: "charge";
  /** When it was made, in ms since the epoch; decides the periods in which it counts. */
  readonly at: number;
  readonly user: string;
  readonly requestId: string;
  readonly model: string;
  readonly charge: Charge;
}

/** The end of a request that had been charged. Tells all that later readers may want to know about it. */
export interface SettleRecord {
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
 * Records are JSON arrays, which take a third of the time that objects take to parse:
 *
 *   ["charge", at, user, request id, model, requests, tokens, cost, currency]
 *   ["settle", at, user, request id, model, requests, tokens, cost, currency of the first charge,
 *    requests, tokens, cost, currency of the final one, input, cached, output, reasoning tokens,
 *    outcome, estimated (0 or 1), settled at]
 */
const chargeLength = 9;
const settleLength = 20;

/** A record as one line of JSON, put together by hand: JSON.stringify takes four times as long. */
export function encodeLedgerRecord(record: LedgerRecord): string {
  const { kind, at, user, requestId, model } = record;
  const head = `["${kind}",${at},"${user}",${JSON.stringify(requestId)},${JSON.stringify(model)}`;
  if (record.kind === "charge") return `${head},${columnsOf(record.charge)}]`;
  const { first, final, usage, outcome, estimated, settledAt } = record;
  const tokens = `${usage.input},${usage.cached},${usage.output},${usage.reasoning}`;
  return `${head},${columnsOf(first)},${columnsOf(final)},${tokens},"${outcome}",${estimated ? 1 : 0},${settledAt}]`;
}

/** Reads a record; undefined for a probe. Throws where it is none: its checksum was right, so this is not bit rot. */
export function decodeLedgerRecord(payload: string): LedgerRecord | undefined {
  const columns: unknown = JSON.parse(payload);
  if (!Array.isArray(columns)) throw new Error("not a list");
  const read = new Columns(columns);
  const kind = read.text(0);
  if (kind === "probe") return undefined;
  if (columns.length !== (kind === "charge" ? chargeLength : settleLength)) throw new Error("columns are missing");
  const user = read.text(2);
  if (!userName.test(user)) throw new Error(`${JSON.stringify(user)} is no user name`);
  const at = read.amount(1);
  const requestId = read.text(3);
  const model = read.text(4);
  if (kind === "charge") return { kind, at, user, requestId, model, charge: read.charge(5) };
  if (kind !== "settle") throw new Error(`unknown kind ${JSON.stringify(kind)}`);
  const outcome = read.text(17);
  if (!isOutcome(outcome)) throw new Error(`unknown outcome ${JSON.stringify(outcome)}`);
  return {
    kind,
    at,
    settledAt: read.amount(19),
    user,
    requestId,
    model,
    first: read.charge(5),
    final: read.charge(9),
    usage: { input: read.amount(13), cached: read.amount(14), output: read.amount(15), reasoning: read.amount(16) },
    outcome,
    estimated: read.amount(18) === 1,
  };
}

class Columns {
  readonly #columns: readonly unknown[];

  constructor(columns: readonly unknown[]) {
    this.#columns = columns;
  }

  text(index: number): string {
    const value = this.#columns[index];
    if (typeof value !== "string") throw new Error(`column ${index} is not a text`);
    return value;
  }

  amount(index: number): number {
    const value = this.#columns[index];
    if (typeof value !== "number" || !isAmount(value)) throw new Error(`column ${index} is not an amount`);
    return value;
  }

  charge(index: number): Charge {
    return {
      requests: this.amount(index),
      tokens: this.amount(index + 1),
      cost: this.amount(index + 2),
      currency: this.text(index + 3),
    };
  }
}

function columnsOf({ requests, tokens, cost, currency }: Charge): string {
  return `${requests},${tokens},${cost},${JSON.stringify(currency)}`;
}

function isOutcome(text: string): text is Outcome {
  return outcomes.has(text);
}
