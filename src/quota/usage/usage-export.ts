import { isGroupAccount } from "../accounts.ts";
import { isNothing } from "../amounts.ts";
import type { Charge, RecordedPiece, TokenUsage } from "../ledger.ts";
import type { Outcome } from "../outcomes.ts";
import { decodeLedgerRecord, type LedgerRecord } from "../memory/charge-record.ts";
import type { Per } from "../periods.ts";

/** One charged request, or a change by hand, as it counts: the sums of all rows are what the usage history has. */
export interface ExportedRow {
  readonly kind: "request" | "adjust" | "reset";
  /** "" for changes by hand, as are all that these don't have. */
  readonly requestId: string;
  /** Time of the first charge, in ms since the epoch: it decides in which periods the row counts. */
  readonly at: number;
  /** null: it is running, or the process was killed. Then the first charge stands. */
  readonly settledAt: number | null;
  /** "" where a group's account was changed. */
  readonly user: string;
  readonly group: string;
  readonly apiKey: string;
  readonly model: string;
  /** "" as well in records from before the provider was recorded. */
  readonly provider: string;
  /** As billed: 0 for what was rolled back. */
  readonly usage: TokenUsage;
  readonly requests: number;
  readonly tokens: number;
  /** In nano-units of the currency; like the other figures of an adjustment negative if taken away. */
  readonly cost: number;
  readonly currency: string;
  readonly price: string;
  readonly outcome: Outcome | "unsettled" | "";
  readonly estimated: boolean;
  /** Of a reset. */
  readonly per: Per | "";
  readonly reason: string;
  readonly by: string;
}

/** Which rows are asked for. */
export interface ExportQuery {
  /** ms since the epoch, by the time of the charge; `to` is exclusive. */
  readonly from?: number | undefined;
  readonly to?: number | undefined;
  readonly user?: string | undefined;
  readonly group?: string | undefined;
  readonly apiKey?: string | undefined;
  readonly model?: string | undefined;
  readonly provider?: string | undefined;
}

export type ExportItem =
  | { readonly kind: "row"; readonly row: ExportedRow }
  /** Rows of the span that was asked for may be missing. */
  | { readonly kind: "problem"; readonly message: string }
  /** Comes last. Where it is missing, so is more. */
  | ExportEnd;

interface ExportEnd {
  readonly kind: "end";
  readonly rows: number;
  readonly complete: boolean;
  /** Of earlier times not all records are kept any more; undefined: everything is. ms since the epoch. */
  readonly keptFrom: number | undefined;
}

/** Requests that are charged and not settled, of about 600 bytes each: more than can run at once. */
const maxUnsettled = 200_000;

/**
 * The rows of a journal: requests as they were settled, with changes by hand among them, then those that are not settled.
 * What the journal lacks is a problem only where it may concern the span. Never throws for what is in the journal.
 *
 * @param upToSeq records after this number are not looked at
 * @param onRecord is called with each record that is read, whether it is asked for or not
 */
export async function* exportUsage(
  pieces: AsyncIterable<RecordedPiece>,
  query: ExportQuery,
  upToSeq = Infinity,
  onRecord: (record: LedgerRecord) => void = () => undefined,
): AsyncGenerator<ExportItem> {
  const reader = createRowReader(query);
  let rows = 0;
  let complete = true;
  let keptFrom: number | undefined;
  /** The oldest records that are not kept any more, until the time of the next one is known. */
  let removed: string | undefined;
  /** Whether another process has these. */
  let isElsewhere = false;
  /** What is missing before the next record, whose time tells whether it matters. */
  let pending: string[] = [];

  function* due(writtenAt: number): Generator<ExportItem> {
    const missing = pending;
    pending = [];
    if (query.from !== undefined && writtenAt < query.from) return;
    for (const message of missing) {
      complete = false;
      yield { kind: "problem", message };
    }
  }

  try {
    for await (const piece of pieces) {
      if (piece.kind === "damage") pending.push(`${nameOf(piece.path)}: ${piece.message}`);
      else if (piece.kind === "gap") {
        const message = `records ${piece.first} to ${piece.last} are missing`;
        if (piece.first === 1) removed = message;
        else pending.push(message);
      } else if (piece.kind === "lack") {
        if (piece.isStart) [removed, isElsewhere] = [messageOfLack(true), true];
        else pending.push(messageOfLack(false));
      } else if (piece.kind === "records") {
        for (const { seq, payload } of piece.records) {
          if (seq > upToSeq) break;
          const record = readRecord(payload);
          if (record instanceof Error) {
            pending.push(`record ${seq}: ${record.message}`);
            continue;
          }
          if (record === undefined) continue;
          const writtenAt = record.kind === "settle" ? record.settledAt : record.at;
          if (removed !== undefined) {
            removed = undefined;
            keptFrom = writtenAt;
            const before = `of the time before ${new Date(writtenAt).toISOString()}`;
            if (isElsewhere) pending.push(`${before}: ${messageOfLack(true)}`);
            // Nobody who names no beginning asks for more than is kept.
            else if (query.from !== undefined && query.from <= writtenAt)
              pending.push(`${before} not all records are kept`);
            isElsewhere = false;
          }
          if (pending.length > 0) yield* due(writtenAt);
          onRecord(record);
          const row = reader.take(record);
          if (row === undefined) continue;
          rows++;
          yield { kind: "row", row };
        }
      }
    }
  } catch (error) {
    pending.push(`the journal cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (removed !== undefined) pending.push(removed);
  yield* due(Infinity);
  for (const row of reader.unsettled()) {
    rows++;
    yield { kind: "row", row };
  }
  if (reader.lost() > 0) {
    complete = false;
    yield { kind: "problem", message: `more than ${maxUnsettled} requests are not settled: ask for a shorter time` };
  }
  yield { kind: "end", rows, complete, keptFrom };
}

/** What a `lack` among the pieces is. */
export function messageOfLack(isStart: boolean): string {
  return isStart
    ? "this process was filled from Redis without the records that led to it: ask one that was there"
    : "this process was away for longer than the log in Redis is kept, and has no records of that time: ask another one";
}

/** Makes the rows of records, which come in their order. */
interface RowReader {
  /** The row that a record completes, if it is asked for. */
  take(record: LedgerRecord): ExportedRow | undefined;
  /** Rows of the requests that are not settled so far. */
  unsettled(): Iterable<ExportedRow>;
  /** How many of these there was no room for. */
  lost(): number;
}

export function createRowReader(query: ExportQuery): RowReader {
  const unsettled = new Map<string, ExportedRow[]>();
  let count = 0;
  let lost = 0;

  function keep(row: ExportedRow): void {
    if (count >= maxUnsettled) {
      lost++;
      return;
    }
    const key = keyOf(row);
    const others = unsettled.get(key);
    if (others === undefined) unsettled.set(key, [row]);
    else others.push(row);
    count++;
  }

  return {
    take(record) {
      if (record.kind === "charge") {
        const row = rowOfCharge(record);
        if (isAskedFor(row, query)) keep(row);
        return undefined;
      }
      const row = record.kind === "settle" ? rowOfSettle(record) : rowOfChange(record);
      if (!isAskedFor(row, query)) return undefined;
      if (record.kind === "settle") {
        const key = keyOf(row);
        const charges = unsettled.get(key);
        if (charges?.pop() !== undefined) count--;
        if (charges?.length === 0) unsettled.delete(key);
      }
      return row;
    },
    *unsettled() {
      for (const some of unsettled.values()) yield* some;
    },
    lost: () => lost,
  };
}

/** An error for what cannot be read, undefined for a record that has no meaning. */
export function readRecord(payload: string): LedgerRecord | Error | undefined {
  try {
    return decodeLedgerRecord(payload);
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

function isAskedFor(row: ExportedRow, { from, to, user, group, apiKey, model, provider }: ExportQuery): boolean {
  return (
    (from === undefined || row.at >= from) &&
    (to === undefined || row.at < to) &&
    (user === undefined || row.user === user) &&
    (group === undefined || row.group === group) &&
    (apiKey === undefined || row.apiKey === apiKey) &&
    (model === undefined || row.model === model) &&
    (provider === undefined || row.provider === provider)
  );
}

/** A client may send a request id twice. */
function keyOf({ user, requestId, at }: ExportedRow): string {
  return `${user} ${at} ${requestId}`;
}

const noTokens: TokenUsage = { input: 0, cached: 0, output: 0, reasoning: 0 };

function rowOfCharge(record: LedgerRecord & { readonly kind: "charge" }): ExportedRow {
  const { charge } = record;
  return {
    ...sourceOf(record),
    settledAt: null,
    usage: { ...noTokens, input: charge.tokens },
    ...amountsOf(charge),
    price: record.price ?? "",
    outcome: "unsettled",
    estimated: true,
  };
}

function rowOfSettle(record: LedgerRecord & { readonly kind: "settle" }): ExportedRow {
  const { final, usage, settledAt, price, outcome, estimated } = record;
  const isBilled = !isNothing(final);
  return {
    ...sourceOf(record),
    settledAt,
    usage: isBilled ? usage : noTokens,
    ...amountsOf(final),
    price,
    outcome,
    estimated: isBilled && estimated,
  };
}

type RequestRecord = LedgerRecord & { readonly kind: "charge" | "settle" };

function sourceOf({ requestId, at, user, group, apiKey, model, provider }: RequestRecord) {
  return {
    kind: "request" as const,
    requestId,
    at,
    user,
    model,
    group: group?.name ?? "",
    apiKey: apiKey ?? "",
    provider: provider ?? "",
    ...notByHand,
  };
}

const notByHand = { per: "", reason: "", by: "" } as const;

function amountsOf({ requests, tokens, cost, currency }: Charge) {
  return { requests, tokens, cost, currency };
}

function rowOfChange(record: LedgerRecord & { readonly kind: "adjust" | "reset" }): ExportedRow {
  const { kind, at, user: account, reason, by } = record;
  const isGroup = isGroupAccount(account);
  const none = { requests: 0, tokens: 0, cost: 0, currency: "" };
  const amounts =
    record.kind === "reset"
      ? none
      : {
          requests: record.added.requests - record.taken.requests,
          tokens: record.added.tokens - record.taken.tokens,
          cost: record.added.cost - record.taken.cost,
          currency: record.added.currency,
        };
  return {
    kind,
    at,
    settledAt: null,
    reason,
    by,
    usage: noTokens,
    ...amounts,
    user: isGroup ? "" : account,
    group: isGroup ? account.slice(1) : "",
    requestId: "",
    apiKey: "",
    model: "",
    provider: "",
    price: "",
    outcome: "",
    estimated: false,
    per: record.kind === "reset" ? record.per : "",
  };
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
