import type { Ledger } from "../ledger.ts";
import type { JournalPosition } from "../../lib/journal/journal-stream.ts";
import { createHourOf, MissingRecords } from "./recorded-usage.ts";
import { sumCells, type SumQuery } from "./sum-cells.ts";
import { TooVaried, UsageCells } from "./usage-cells.ts";
import { createRowReader, type ExportedRow, messageOfLack, readRecord } from "./usage-export.ts";
import type { UsageLine } from "./usage-queries.ts";

/**
 * Sums of everything that was recorded, by hour, user, group, API key, model and provider. They are counted from the
 * journal when somebody asks for the first time, and from then on only what is new in it is read.
 */
export interface UsageSums {
  /** Whether an answer needs no more than a look at what is new. Begins to count if nobody has asked yet. */
  isReady(): boolean;
  /**
   * The sums up to now, ordered by the names of their subjects; undefined where they must be read from the journal: they
   * are of earlier times than are kept here, or there are too many names.
   *
   * @param fromMs the beginning of the first day
   * @throws MissingRecords, TooManyRows, and what reading the journal throws
   */
  sum(query: SumQuery, fromMs: number): Promise<readonly UsageLine[] | undefined>;
  /**
   * A request of a user as it was settled, the last one of that id; undefined: it is not settled yet, there was none, or
   * others have followed it since, more than are remembered.
   *
   * @throws what reading the journal throws
   */
  find(user: string, requestId: string): Promise<ExportedRow | undefined>;
  /** Counts nothing more. */
  close(): Promise<void>;
}

export interface UsageSumsOptions {
  readonly recorded: Ledger["recorded"];
  /** quota.timezone. */
  readonly timezone: string;
  /** Cells of 48 bytes that are kept: by user, and a quarter as many that are not. Default: a million. */
  readonly maxCells?: number;
  /** How often what is new is read once somebody has asked, in ms, so that an answer has little to read. */
  readonly everyMs?: number;
}

/** Damages of the journal that are remembered one by one. */
const maxProblems = 100;
/** Settled requests that can be found one by one, of about 500 bytes each. */
const maxFound = 10_000;

export function createUsageSums(options: UsageSumsOptions): UsageSums {
  const { recorded, timezone, maxCells = 1_000_000, everyMs = 5000 } = options;
  const hourOf = createHourOf(timezone);
  let counted: Counted | undefined;
  let isReady = false;
  let isClosed = false;
  let running: Promise<void> | undefined;
  let next: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;

  /** Resolves when all that was recorded before this call is counted. */
  function catchUp(): Promise<void> {
    if (running === undefined) {
      running = read().finally(() => (running = undefined));
      return running;
    }
    // What is being read may have begun too early for this call.
    next ??= running
      .catch(() => undefined)
      .then(() => {
        next = undefined;
        return catchUp();
      });
    return next;
  }

  async function read(): Promise<void> {
    const into = (counted ??= createCounted(maxCells, hourOf));
    try {
      for await (const piece of recorded(into.position())) {
        if (isClosed) return;
        into.take(piece);
      }
      isReady = true;
      timer ??= setInterval(() => {
        if (running === undefined) catchUp().catch(() => undefined);
      }, everyMs).unref();
    } catch (error) {
      // A piece may have been counted in part, so counting starts over.
      counted = undefined;
      isReady = false;
      throw error;
    }
  }

  return {
    isReady() {
      if (!isReady && running === undefined) catchUp().catch(() => undefined);
      return isReady && counted?.isTooVaried() === false;
    },
    async sum(query, fromMs) {
      if (isClosed || counted?.isTooVaried() === true) return undefined;
      await catchUp();
      return counted?.sum(query, fromMs);
    },
    async find(user, requestId) {
      if (isClosed) return undefined;
      await catchUp();
      return counted?.find(user, requestId);
    },
    async close() {
      isClosed = true;
      clearInterval(timer);
      await running?.catch(() => undefined);
    },
  };
}

type Counted = ReturnType<typeof createCounted>;
type Piece = Ledger["recorded"] extends (...given: never) => AsyncIterable<infer Each> ? Each : never;

/** What has been counted from the beginning of the journal up to a position. */
function createCounted(maxCells: number, hourOf: (at: number) => string) {
  /**
   * Undefined: there are more names than cells can have, and every sum comes from the journal. `together` is for sums
   * over all users, with far fewer cells.
   */
  let cells: { readonly byUser: UsageCells; readonly together: UsageCells } | undefined = {
    byUser: new UsageCells(true, maxCells),
    together: new UsageCells(false, maxCells / 4),
  };
  const reader = createRowReader({});
  /** What is missing, and the time of the next record, in ms. */
  const problems: { readonly message: string; readonly before: number }[] = [];
  let pending: string[] = [];
  /** The last settled requests, the oldest first. */
  const recent = new Map<string, ExportedRow>();
  let removed: string | undefined;
  let keptFrom = -Infinity;
  let position: JournalPosition | undefined;

  function count(row: ExportedRow): void {
    // What was changed by hand in a group's account was used by no user.
    if (row.user === "") return;
    addToCells(row);
    if (row.settledAt === null) return;
    const key = `${row.user} ${row.requestId}`;
    recent.delete(key);
    recent.set(key, row);
    const [oldest] = recent.keys();
    if (recent.size > maxFound && oldest !== undefined) recent.delete(oldest);
  }

  function addToCells(row: ExportedRow): void {
    if (cells === undefined) return;
    const hour = hourOf(row.at);
    try {
      cells.byUser.add(row, hour);
      cells.together.add(row, hour);
    } catch (error) {
      if (!(error instanceof TooVaried)) throw error;
      cells = undefined;
    }
  }

  function noteProblems(before: number): void {
    if (removed !== undefined) {
      removed = undefined;
      keptFrom = before;
    }
    for (const message of pending) problems.push({ message, before });
    pending = [];
    // The oldest matter least.
    if (problems.length > maxProblems) problems.splice(0, problems.length - maxProblems);
  }

  function check(fromMs: number): void {
    if (reader.lost() > 0) throw new MissingRecords("too many requests are not settled");
    if (fromMs <= keptFrom)
      throw new MissingRecords(`of the time before ${new Date(keptFrom).toISOString()} not all records are kept`);
    const problem = removed ?? pending[0] ?? problems.find(({ before }) => before >= fromMs)?.message;
    if (problem !== undefined) throw new MissingRecords(problem);
  }

  return {
    position: () => position,
    isTooVaried: () => cells === undefined,
    find: (user: string, requestId: string) => recent.get(`${user} ${requestId}`),
    take(piece: Piece): void {
      if (piece.kind === "end") position = piece.position;
      else if (piece.kind === "damage")
        pending.push(`${piece.path.slice(piece.path.lastIndexOf("/") + 1)}: ${piece.message}`);
      else if (piece.kind === "gap") {
        const message = `records ${piece.first} to ${piece.last} are missing`;
        if (piece.first === 1) removed = message;
        else pending.push(message);
      } else if (piece.kind === "lack") {
        if (piece.isStart) removed = messageOfLack(true);
        else pending.push(messageOfLack(false));
      } else {
        for (const { seq, payload } of piece.records) {
          const record = readRecord(payload);
          if (record instanceof Error) pending.push(`record ${seq}: ${record.message}`);
          if (record === undefined || record instanceof Error) continue;
          noteProblems(record.kind === "settle" ? record.settledAt : record.at);
          const row = reader.take(record);
          if (row !== undefined) count(row);
        }
      }
    },
    sum(query: SumQuery, fromMs: number): Promise<readonly UsageLine[]> | undefined {
      if (cells === undefined) return undefined;
      check(fromMs);
      const { user, by } = query;
      const isWide = user === undefined && !by.includes("user") && !by.includes("key");
      const chosen = isWide ? cells.together : cells.byUser;
      if (fromMs < chosen.completeFrom) return undefined;
      const unsettled = [...reader.unsettled()].map((row) => chosen.asOdd(row, hourOf(row.at)));
      return sumCells(chosen, query, unsettled);
    },
  };
}
