import { mkdir } from "node:fs/promises";
import path from "node:path";
import {
  auditFolder,
  behaviourFolder,
  behaviourLine,
  newestDay,
  removeBeyondSize,
  removeOldFiles,
  removeOldFilesFrom,
} from "./behaviour-files.ts";
import { createBehaviourWriter } from "./behaviour-writer.ts";
import type { LogCompressor } from "./log-compressor.ts";
import type { Sink } from "../bus.ts";
import type { ProxyEvent } from "../catalogue.ts";
import type { Envelopes } from "../envelope.ts";
import type { Clock } from "../../lib/clock.ts";
import { createIsoTime } from "../../lib/dates.ts";
import type { AppendFile } from "../../lib/files/append-file.ts";
import { createDayWitness } from "../../lib/files/day-witness.ts";
import type { Log } from "../../lib/log.ts";

export interface BehaviourLogOptions {
  /** The log folder; lines go to `users/NAME/YYYY-MM-DD.jsonl` in it. */
  readonly logsDir: string;
  /** The folder whose log an event goes to; null: none. Default: that of its user. */
  readonly folderOf?: (event: ProxyEvent) => string | null;
  /** How long a line may wait in memory, in ms. */
  readonly flushMs: number;
  /** Maximum number of waiting lines; more are dropped and counted. */
  readonly maxQueued: number;
  /** Size in bytes at which a day continues in a new file. */
  readonly maxFileBytes: number;
  /** Read at every use, as the next one is: they may change. */
  readonly keepDays: number;
  /** Size of all users' files together beyond which the oldest days are removed; 0 or absent: no limit. */
  readonly maxTotalBytes?: number;
  /** Days after which a day's files are compressed; 0 or absent: never. */
  readonly compressAfterDays?: number;
  readonly compressor?: LogCompressor;
  /** As keepDays for the audit log, whose old files are removed together with these. */
  readonly auditKeepDays: number;
  /** The day, as YYYY-MM-DD, of a time in ms since the epoch. Called at most once per minute of event time. */
  readonly dayOf: (at: number) => string;
  /** Shared with the other sinks. */
  readonly envelopes: Pick<Envelopes, "idOf" | "factsTextOf">;
  readonly clock: Clock;
  readonly log: Log;
  /** As of createBehaviourWriter. */
  readonly maxOpen?: number;
  /** For tests of a failing disk. */
  readonly openFile?: (path: string) => Promise<AppendFile>;
}

/** State of the behaviour log, for /healthz and metrics. */
interface BehaviourLogHealth {
  /** False once closed, or if one round of writing has taken half a minute. */
  readonly alive: boolean;
  /** Code or message of the latest failure; null once all files can be written again. */
  readonly lastError: string | null;
  readonly queued: number;
  readonly dropped: Readonly<Record<DropReason, number>>;
}

export interface BehaviourLog {
  readonly sink: Sink;
  /** Writes the waiting lines, except to files that failed a moment ago. Never rejects. */
  flush(): Promise<void>;
  health(): BehaviourLogHealth;
  /** Writes everything, gives up on failing files, and closes all files. Later events are dropped. */
  close(): Promise<void>;
}

const dayMs = 86_400_000;
const lineFeed = 0x0a;
/** A batch begins with room for two lines or so. */
const firstBytes = 1 << 10;
/** A batch of this size is written at once. */
const flushLength = 64 << 10;
/** So are all lines, once so many have come since the latest round, and a quarter of what may wait. */
const urgentLines = 1000;
const reportEveryMs = 10_000;
const stuckAfterMs = 30_000;
const firstRetryMs = 500;
const maxRetryMs = 60_000;
/** Each step of a file takes a turn of the event loop, which under load has a lot to do in between. */
const filesAtOnce = 32;

/**
 * Records what each user did. Lines wait in memory and are written in rounds, file by file, so requests never wait for
 * the disk. A failing file keeps its lines and is retried at growing intervals, while the others continue; an error in
 * the middle of a write may repeat a line, but never lose one. Only the lines counted in `dropped` are lost.
 */
export function createBehaviourLog(options: BehaviourLogOptions): BehaviourLog {
  const { clock, log, flushMs, envelopes, folderOf = behaviourFolder } = options;
  const usersDir = path.join(options.logsDir, "users");
  const queue = createBehaviourQueue(options.maxQueued);
  const writer = createBehaviourWriter({ ...options, usersDir });
  const isoTime = createIsoTime();
  const dayOf = cachedByMinute(options.dayOf);
  let flushTimer: NodeJS.Timeout | undefined;
  let round: Promise<void> | undefined;
  let roundSince = Infinity;
  /** Events since the latest round of writing began. */
  let sinceRound = 0;
  let lastError: string | null = null;
  let reported = 0;
  let reportedAt = -Infinity;
  let closed = false;

  function sink(event: Parameters<Sink>[0]): void {
    const folder = folderOf(event);
    if (folder === null) return;
    if (closed) {
      queue.drop("closed");
      return;
    }
    const line = behaviourLine(envelopes.factsTextOf(event), isoTime(event.at), envelopes.idOf(event));
    const batch = queue.push(folder, dayOf(event.at), line);
    const isUrgent = ++sinceRound >= Math.max(urgentLines, options.maxQueued / 4);
    if (isUrgent || (batch !== null && batch.length >= flushLength && batch.failures === 0)) void flush();
    else flushSoon();
  }

  function flushSoon(): void {
    if (flushTimer !== undefined || round !== undefined || closed) return;
    flushTimer = setTimeout(() => void flush(), flushMs);
    flushTimer.unref();
  }

  function flush(): Promise<void> {
    clearTimeout(flushTimer);
    flushTimer = undefined;
    round ??= writeAll(false).finally(endRound);
    return round;
  }

  function endRound(): void {
    round = undefined;
    if (queue.size > 0) flushSoon();
  }

  /** Runs the action between two rounds of writing, with no file open. */
  async function alone<T>(action: () => Promise<T>): Promise<T> {
    while (round !== undefined) await round;
    const running = writer.close().then(action);
    const over = (): void => undefined;
    round = running.then(over, over).finally(endRound);
    return running;
  }

  async function writeAll(evenFailing: boolean): Promise<void> {
    roundSince = clock.monotonic();
    sinceRound = 0;
    const batches = queue.batches();
    const next = batches.values();
    const writeSome = async (): Promise<void> => {
      for (const batch of next) if (evenFailing || clock.monotonic() >= batch.retryAt) await writeBatch(batch);
    };
    await Promise.all(Array.from({ length: filesAtOnce }, writeSome));
    if (batches.every(({ failures }) => failures === 0)) lastError = null;
    roundSince = Infinity;
    reportDrops(reportEveryMs);
  }

  async function writeBatch(batch: Batch): Promise<void> {
    const lines = queue.take(batch);
    try {
      await writer.write(batch.folder, batch.day, lines);
      batch.failures = 0;
    } catch (error) {
      noteFailure(batch, error);
    }
    queue.done(batch, lines.rest);
  }

  function noteFailure(batch: Batch, err: unknown): void {
    batch.failures += 1;
    batch.retryAt = clock.monotonic() + Math.min(firstRetryMs * 2 ** (batch.failures - 1), maxRetryMs);
    lastError = shortError(err);
    if (batch.failures === 1) log.error({ err, folder: batch.folder }, "the behaviour log cannot be written; retrying");
  }

  function reportDrops(atMostEveryMs: number): void {
    const dropped = queue.dropped();
    const total = dropped.queue_full + dropped.io_error + dropped.closed;
    const now = clock.monotonic();
    if (total === reported || now - reportedAt < atMostEveryMs) return;
    reported = total;
    reportedAt = now;
    log.warn({ dropped_so_far: dropped }, "the behaviour log dropped lines");
  }

  const witness = createDayWitness({
    file: path.join(options.logsDir, ".days"),
    newestDay: () => newestDay(options.logsDir),
    firstGapDays: options.keepDays,
    log,
  });

  async function sweep(): Promise<void> {
    try {
      await mkdir(usersDir, { recursive: true, mode: 0o700 });
      if (!(await witness.believes(options.dayOf(clock.now())))) return;
      const firstDay = (days: number): string => options.dayOf(clock.now() - days * dayMs);
      const removed = await removeOldFiles(usersDir, firstDay(options.keepDays));
      const audits = await removeOldFilesFrom(auditFolder(options.logsDir), firstDay(options.auditKeepDays));
      const { maxTotalBytes = 0 } = options;
      const today = options.dayOf(clock.now());
      const beyond = maxTotalBytes > 0 ? await removeBeyondSize(usersDir, maxTotalBytes, today) : 0;
      if (removed + audits + beyond > 0)
        log.info({ removed, audits, beyond_size: beyond }, "old behaviour and audit logs removed");
      // Last: what fails here must not keep old logs from being removed.
      await compress(firstDay);
    } catch (err) {
      log.warn({ err }, "old behaviour or audit logs cannot be removed or compressed");
    }
  }

  async function compress(firstDay: (days: number) => string): Promise<void> {
    const { compressor, compressAfterDays = 0 } = options;
    if (compressor === undefined || compressAfterDays === 0) return;
    const compressed = await compressor.compress(usersDir, firstDay(compressAfterDays - 1), alone);
    if (compressed > 0) log.info({ compressed }, "behaviour logs of past days compressed");
  }

  let sweeping = sweep();
  const sweepTimer = setInterval(() => {
    sweeping = sweeping.then(sweep);
  }, dayMs);
  sweepTimer.unref();

  return {
    sink,
    flush,
    health: () => ({
      alive: !closed && clock.monotonic() - roundSince < stuckAfterMs,
      lastError,
      queued: queue.size,
      dropped: queue.dropped(),
    }),
    async close() {
      if (closed) return;
      closed = true;
      clearTimeout(flushTimer);
      clearInterval(sweepTimer);
      await round;
      await writeAll(true);
      queue.dropEverything("io_error");
      reportDrops(0);
      await Promise.all([writer.close(), sweeping]);
    },
  };
}

/** Converting a time to a day of a time zone is slow, and every zone changes its day on a whole minute. */
function cachedByMinute(dayOf: (at: number) => string): (at: number) => string {
  let minute = NaN;
  let day = "";
  return (at) => {
    const minuteOfAt = Math.floor(at / 60_000);
    if (minuteOfAt !== minute) {
      day = dayOf(at);
      minute = minuteOfAt;
    }
    return day;
  };
}

function shortError(error: unknown): string {
  if (!(error instanceof Error)) return "unknown";
  return "code" in error && typeof error.code === "string" ? error.code : error.message;
}

/** Why a line was dropped: the queue was full; its file could not be written; or the log was closed. */
type DropReason = "queue_full" | "io_error" | "closed";

/** Waiting lines for one folder's log of one day. */
interface Batch {
  readonly folder: string;
  readonly day: string;
  /** Number of waiting lines; those that are being written are not among them. */
  lines: number;
  /** The lines as they will stand in the file, in the first `length` bytes. One object, not one a line: there are many. */
  bytes: Buffer;
  length: number;
  /** Number of lines that are being written. */
  writing: number;
  /** Consecutive failures; 0 after a success. */
  failures: number;
  /** Monotonic ms until which a failed batch is not retried. */
  retryAt: number;
}

/** Lines waiting to be written, grouped by their file, and a count of those that did not fit. */
interface BehaviourQueue {
  /** Adds a line; returns its batch, or null if it was dropped. */
  push(folder: string, day: string, line: string): Batch | null;
  /** Waiting lines, including those that are being written. */
  readonly size: number;
  /** All batches, the oldest first. */
  batches(): readonly Batch[];
  /** Takes the lines out of a batch for writing. Call `done` afterwards. */
  take(batch: Batch): { rest: Buffer };
  /** Reports that the lines taken were written but for `rest`, which goes back to the head of the batch. */
  done(batch: Batch, rest: Buffer): void;
  /** Drops a line that was never added, or all waiting lines. */
  drop(reason: DropReason, lines?: number): void;
  dropEverything(reason: DropReason): void;
  /** Lines dropped so far, by reason. */
  dropped(): Readonly<Record<DropReason, number>>;
}

/**
 * At most `max` lines wait. A failing file may hold a quarter of them: one user's broken folder must not use up the
 * room of all the others.
 */
function createBehaviourQueue(max: number): BehaviourQueue {
  const batches = new Map<string, Batch>();
  const dropped: Record<DropReason, number> = { queue_full: 0, io_error: 0, closed: 0 };
  const maxOfFailing = Math.max(1, Math.floor(max / 4));
  let size = 0;

  function batchOf(folder: string, day: string): Batch {
    const key = `${folder}/${day}`;
    const known = batches.get(key);
    if (known !== undefined) return known;
    const empty = { lines: 0, bytes: Buffer.alloc(0), length: 0, writing: 0 };
    const made = { folder, day, ...empty, failures: 0, retryAt: -Infinity };
    batches.set(key, made);
    return made;
  }

  function add(batch: Batch, line: string): void {
    const length = batch.length + Buffer.byteLength(line);
    if (length > batch.bytes.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(length, 2 * batch.bytes.length, firstBytes));
      batch.bytes.copy(grown, 0, 0, batch.length);
      batch.bytes = grown;
    }
    batch.bytes.write(line, batch.length);
    batch.length = length;
    batch.lines += 1;
  }

  return {
    push(folder, day, line) {
      if (size >= max) {
        dropped.queue_full += 1;
        return null;
      }
      const batch = batchOf(folder, day);
      if (batch.failures > 0 && batch.lines >= maxOfFailing) {
        dropped.io_error += 1;
        return null;
      }
      add(batch, line);
      size += 1;
      return batch;
    },
    get size() {
      return size;
    },
    batches: () => [...batches.values()],
    take(batch) {
      const rest = batch.bytes.subarray(0, batch.length);
      batch.writing = batch.lines;
      batch.bytes = Buffer.alloc(0);
      batch.lines = batch.length = 0;
      return { rest };
    },
    done(batch, rest) {
      const left = rest.length === 0 ? 0 : countLines(rest);
      size -= batch.writing - left;
      batch.writing = 0;
      if (left > 0) {
        batch.bytes = Buffer.concat([rest, batch.bytes.subarray(0, batch.length)]);
        batch.length = batch.bytes.length;
        batch.lines += left;
      }
      if (batch.lines === 0) batches.delete(`${batch.folder}/${batch.day}`);
    },
    drop(reason, lines = 1) {
      dropped[reason] += lines;
    },
    dropEverything(reason) {
      dropped[reason] += size;
      size = 0;
      batches.clear();
    },
    dropped: () => ({ ...dropped }),
  };
}

function countLines(bytes: Buffer): number {
  let lines = 0;
  for (let at = bytes.indexOf(lineFeed); at >= 0; at = bytes.indexOf(lineFeed, at + 1)) lines += 1;
  return lines;
}
