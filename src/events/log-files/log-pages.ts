import { constants } from "node:fs";
import { open } from "node:fs/promises";
import path from "node:path";
import { behaviourFileName, entriesOf, isBehaviourFolder, parseFileName } from "./behaviour-files.ts";
import { type BehaviourEvent, type BehaviourFilter, collectEvents, disorderMs, timeOfLine } from "./behaviour-scan.ts";
import { AppError } from "../../errors.ts";
import { fileErrorCode } from "../../lib/files/file-ops.ts";
import { ExpansionError, plainFile, readGzip, type TextFile } from "../../lib/files/text-file.ts";
import type { Log } from "../../lib/log.ts";
import { findEndOfLinesUpTo, readLinesBefore } from "../../lib/journal/line-blocks.ts";

/** The filter, position and size of a page. */
export interface PageQuery extends BehaviourFilter {
  /** `nextCursor` of the previous page; use it with the same filters. */
  readonly cursor?: string | undefined;
  /** Events per page, 1 to 1000. */
  readonly limit: number;
}

export interface LogPage {
  /** Newest first. */
  readonly events: readonly BehaviourEvent[];
  /**
   * Where to continue; null at the end. A page may have fewer events than its limit, even none, and still have a
   * cursor: the amount read for one page is bounded.
   */
  readonly nextCursor: string | null;
}

/** Part of a day's log, compressed or not. */
interface LogPart {
  readonly day: string;
  readonly part: number;
}

/** What is read for a page at most. */
export interface PageLimits {
  /** Maximum bytes to read, plus one block. Default: 4 MiB. */
  readonly maxScanBytes?: number;
  /**
   * Maximum bytes of a text that somebody else has compressed; a larger one is skipped. Default: 1 GiB, as no log is
   * larger.
   */
  readonly maxExpandedBytes?: number;
  /** Says which file was skipped, and why a log can't be read. */
  readonly log?: Log;
}

const maxLimit = 1000;
const hourMs = 3_600_000;

/**
 * Reads a page of the logs in a folder, written elsewhere, backwards from their ends: so the newest events cost the
 * same however long a log is. `to` is found by binary search: times in a file increase, except within `disorderMs`.
 *
 * @param owner the log's owner: cursors are valid only for the same owner
 * @throws AppError `invalid_request` for a cursor that isn't of this log, `storage_unavailable` if the files can't be read
 */
export async function readLogPage(
  folder: string,
  owner: string,
  query: PageQuery,
  limits: PageLimits = {},
): Promise<LogPage> {
  try {
    return await readPage(folder, owner, query, limits);
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    limits.log?.error({ folder, err: cause }, "a log cannot be read");
    throw new AppError("storage_unavailable", { message: "The log cannot be read at the moment.", cause });
  }
}

async function readPage(
  folder: string,
  owner: string,
  { cursor, limit, ...filter }: PageQuery,
  limits: PageLimits,
): Promise<LogPage> {
  const { maxScanBytes = 4 << 20 } = limits;
  const from = cursor === undefined ? null : decodeCursor(owner, cursor);
  const scan = createScan(filter, Math.min(Math.max(limit, 1), maxLimit), maxScanBytes);
  for (const file of await listParts(folder, filter, from)) {
    const isFirst = from?.day === file.day && from.part === file.part;
    const name = path.join(folder, behaviourFileName(file.day, file.part));
    const stop = await withFile(name, limits, (text) => scan.read(text, isFirst ? from.offset : null));
    if (stop === "older") break;
    if (stop !== null) return { events: scan.events, nextCursor: encodeCursor(owner, { ...file, offset: stop }) };
  }
  return { events: scan.events, nextCursor: null };
}

/** Collects one page, file by file. */
function createScan(filter: BehaviourFilter, limit: number, maxBytes: number) {
  const events: BehaviourEvent[] = [];
  let bytesLeft = maxBytes;

  return {
    events,
    /**
     * Reads a file backwards, from an offset or from the end of the filter's times. Returns the offset at which the
     * page is complete, "older" if no older file can match, null at the beginning of the file.
     */
    async read(file: TextFile, offset: number | null): Promise<number | "older" | null> {
      const { size } = file;
      let end = Math.min(offset ?? size, size);
      if (filter.to !== undefined && offset === null) {
        end = await findEndOfLinesUpTo(file, size, filter.to + disorderMs, timeOfLine);
      }
      while (end > 0) {
        if (bytesLeft <= 0) return end;
        const block = await readLinesBefore(file, end);
        bytesLeft -= end - block.start;
        const stop = collectEvents(block, filter, events, limit);
        if (stop !== null) return stop;
        end = block.start;
      }
      return null;
    },
  };
}

/** The parts that may contain matches, newest first. */
async function listParts(
  folder: string,
  { from = -Infinity, to = Infinity }: BehaviourFilter,
  position: BehaviourPosition | null,
): Promise<LogPart[]> {
  const parts = new Map<string, LogPart>();
  for (const { name } of await entriesOf(folder)) {
    const file = parseFileName(name);
    if (file !== null && file.state !== "unfinished") parts.set(behaviourFileName(file.day, file.part), file);
  }
  return [...parts.values()]
    .filter((file) => position === null || newestFirst(position, file) <= 0)
    .filter(({ day }) => {
      // A day of some time zone: it begins up to 14 hours before that day in UTC, and ends up to 12 hours after it.
      const start = Date.parse(day);
      return start - 14 * hourMs < to && start + 36 * hourMs >= from;
    })
    .sort(newestFirst);
}

function newestFirst(a: LogPart, b: LogPart): number {
  return a.day === b.day ? b.part - a.part : a.day < b.day ? 1 : -1;
}

/**
 * Opens a file or, if it is gone, what it was compressed to; runs the work and closes it. Null if it is no plain file, gone,
 * or too large.
 */
async function withFile<T>(name: string, limits: PageLimits, work: (file: TextFile) => Promise<T>): Promise<T | null> {
  const file = (await openText(name, limits)) ?? (await openText(`${name}.gz`, limits));
  if (file === null) return null;
  try {
    return await work(file);
  } finally {
    await file.close();
  }
}

async function openText(name: string, { maxExpandedBytes = 1 << 30, log }: PageLimits): Promise<TextFile | null> {
  try {
    // O_NONBLOCK: opening a pipe must not wait for its writer.
    const handle = await open(name, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    if (!(await handle.stat()).isFile()) {
      await handle.close();
      log?.warn({ event: "logs.skipped", file: name }, "this is no plain file, and is not read as a log");
      return null;
    }
    return await (name.endsWith(".gz") ? readGzip(handle, name, maxExpandedBytes) : plainFile(handle));
  } catch (error) {
    if (error instanceof ExpansionError) {
      log?.warn({ event: "logs.skipped", file: name, err: error }, "a compressed log is too large to be read");
      return null;
    }
    const code = fileErrorCode(error);
    if (code === "ENOENT" || code === "ELOOP") return null;
    throw error;
  }
}

/** The position where a page of a user's behaviour log ended. */
interface BehaviourPosition {
  /** YYYY-MM-DD of the file. */
  readonly day: string;
  /** Part of the day's log. */
  readonly part: number;
  /** Byte offset of the last line that was read, before compression; files only grow, so it stays valid. */
  readonly offset: number;
}

const pattern = /^([a-z0-9_-]{1,32}) (\d{4}-\d{2}-\d{2}) (\d{1,9}) (\d{1,15})$/;

/** The position as an opaque text for clients. */
function encodeCursor(user: string, { day, part, offset }: BehaviourPosition): string {
  return Buffer.from(`${user} ${day} ${part} ${offset}`).toString("base64url");
}

/** @throws AppError `invalid_request` (param "cursor") for an invalid cursor, or one of another user's log */
function decodeCursor(user: string, cursor: string): BehaviourPosition {
  const [, owner, day, part, offset] = pattern.exec(Buffer.from(cursor, "base64url").toString("latin1")) ?? [];
  if (owner !== user || day === undefined) {
    throw new AppError("invalid_request", { param: "cursor", message: "This is no cursor of this log." });
  }
  return { day, part: Number(part), offset: Number(offset) };
}

export interface BehaviourQuery extends PageQuery {
  /** A user name, or `_unknown` for attempts with nonexistent names. */
  readonly user: string;
}

export interface BehaviourReader {
  /**
   * Reads a page of a user's events, from the files alone: lines still in memory are not included.
   *
   * @throws AppError `invalid_request` for a user that can have no log, or a cursor that isn't of this user's log
   */
  page(query: BehaviourQuery): Promise<LogPage>;
}

/** Reads the files of the behaviour log. */
export function createBehaviourReader(options: PageLimits & { readonly logsDir: string }): BehaviourReader {
  return {
    async page({ user, ...query }) {
      if (!isBehaviourFolder(user)) throw new AppError("invalid_request", { param: "user" });
      return readLogPage(path.join(options.logsDir, "users", user), user, query, options);
    },
  };
}

/** Below logs/requests/users/: the requests of all users, in the order in which they ended. */
export const allRequests = "all";
/** Each line of it may have to be parsed: less is read for a page than of one user's log. */
const maxRequestBytes = 2 << 20;

export interface RequestReader {
  /** As BehaviourReader.page, over the requests of all users. */
  page(query: PageQuery): Promise<LogPage>;
}

/** @param requestsDir logs/requests */
export function createRequestReader(requestsDir: string, log: Log): RequestReader {
  const folder = path.join(requestsDir, "users", allRequests);
  return { page: (query) => readLogPage(folder, allRequests, query, { maxScanBytes: maxRequestBytes, log }) };
}
