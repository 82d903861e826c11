import { constants, promises } from "node:fs";
import { dirname } from "node:path";
import { syncFolder } from "../files/atomic-file.ts";
import { diskOps, type FileOps } from "../files/file-ops.ts";
import { type JournalContent, type OnFile, readJournal, type Segment, segmentPath } from "./journal-folder.ts";
import { encodeRecord, maxRecordBytes } from "./journal-format.ts";
import type { OnRecord } from "./journal-reader.ts";
import { createSegmentFile, JournalError, type SegmentFile } from "./journal-segment.ts";

/** An append-only file of numbered records, in segments. */
export interface Journal {
  /**
   * Writes one record and returns its number. The kernel has it when this returns, so it survives a crash of the
   * process, but not a power loss. Throws JournalError, and then the record is not there: a partly written one has been
   * cut off.
   */
  append(payload: string): number;
  /** Resolves when record `seq` is on disk; rejects if that is unknown. Many callers share one sync. */
  synced(seq: number): Promise<void>;
  /** Number of the last record; if there is none, one less than the first to come. */
  lastSeq(): number;
  /** Retires the files that contain nothing newer than record `seq`, oldest first; never the one being written. */
  dropThrough(seq: number): Promise<void>;
  /** What a power loss would lose now. */
  lag(): { readonly records: number; readonly bytes: number };
  /** Why nothing can be appended until `startOver`; undefined if there is no failure. */
  failure(): Error | undefined;
  /**
   * Recovers from a failure: retires all files, including the failed one, so that the next record starts a new one. The
   * caller has ensured that everything appended so far is on disk elsewhere. Rejects if that can't be done now, and
   * then the failure persists.
   */
  startOver(): Promise<void>;
  /** Syncs and closes. Rejects if the last records could not be synced. */
  close(): Promise<void>;
}

export interface JournalOptions {
  readonly folder: string;
  /** The result of recoverJournal. */
  readonly content: JournalContent;
  /** The first record gets at least this number. */
  readonly minimumSeq?: number;
  /** File size in bytes at which a new file is started. */
  readonly segmentBytes: number;
  /** How long a record may wait for its sync, in ms. */
  readonly syncIntervalMs: number;
  /** Called when a failure makes the journal unusable until `startOver`. */
  readonly onFailure?: (error: Error) => void;
  /** Removes a file that is no longer needed from the journal. Default: deletes it. */
  readonly retire?: (path: string) => Promise<void>;
  readonly ops?: FileOps;
}

/**
 * Opens a recovered journal for appending, by one process only. Old files are never written again: the first record
 * starts a new one, and until then nothing is changed.
 */
export function openJournal(options: JournalOptions): Journal {
  const { folder, content, minimumSeq = 1, segmentBytes, syncIntervalMs, onFailure, ops = diskOps } = options;
  const retire = options.retire ?? ((path: string) => ops.unlink(path));
  const buffer = Buffer.allocUnsafe(maxRecordBytes);
  let seq = Math.max(content.nextSeq, minimumSeq) - 1;
  let complete: readonly Segment[] = content.segments;
  let current: SegmentFile | undefined;
  /** Descriptors of complete files; a running sync may still use one, so they are closed after the next. */
  const outgoing: number[] = [];
  let folderChanged = false;
  let failure: Error | undefined;
  let closed = false;
  let group = beginGroup();

  function beginGroup(): GroupSync {
    return createGroupSync({ sync, intervalMs: syncIntervalMs, syncedSeq: seq, onFailure: syncFailed });
  }

  async function sync(): Promise<void> {
    const unused = outgoing.length;
    const fd = current?.fd;
    if (folderChanged) {
      folderChanged = false;
      await syncFolder(folder, ops);
    }
    if (fd !== undefined) await ops.fdatasync(fd);
    for (const old of outgoing.splice(0, unused)) ops.closeSync(old);
  }

  function syncFailed(cause: unknown): JournalError {
    return fail(new JournalError("the journal could not be synced", cause, true));
  }

  function fail(error: JournalError): JournalError {
    if (failure === undefined) {
      failure = error;
      onFailure?.(error);
    }
    return error;
  }

  /** The file for the next record. */
  function segment(): SegmentFile {
    if (current !== undefined && current.size() < segmentBytes) return current;
    const previous = current === undefined ? (complete.at(-1)?.last ?? 0) : seq;
    if (current !== undefined) syncBlocking(current);
    const next = createSegmentFile(ops, segmentPath(folder, seq + 1), { first: seq + 1, previous });
    if (current !== undefined) {
      outgoing.push(current.fd);
      complete = [...complete, { path: current.path, first: current.first, last: seq }];
    }
    current = next;
    folderChanged = true;
    return next;
  }

  /**
   * Only the newest file may be torn: if a power loss kept the next file and not the end of this one, that would look
   * like damage. So the event loop blocks for the disk, once every `segmentBytes`.
   */
  function syncBlocking(file: SegmentFile): void {
    try {
      ops.fdatasyncSync(file.fd);
    } catch (cause) {
      throw syncFailed(cause);
    }
    group.syncedAll();
  }

  async function dropThrough(covered: number): Promise<void> {
    for (const old of complete.filter(({ last }) => last <= covered)) {
      await retire(old.path);
      complete = complete.filter((other) => other !== old);
    }
  }

  return {
    append(payload) {
      if (failure !== undefined) throw failure;
      const length = encodeRecord(buffer, seq + 1, payload);
      try {
        segment().append(buffer, length);
      } catch (error) {
        throw error instanceof JournalError && error.final ? fail(error) : error;
      }
      seq++;
      group.appended(seq, length);
      return seq;
    },
    synced: (wanted) => group.synced(wanted),
    lastSeq: () => seq,
    dropThrough,
    lag: () => group.lag(),
    failure: () => failure,
    async startOver() {
      if (failure === undefined || closed) return;
      await group.stop();
      await dropThrough(seq);
      if (current !== undefined) {
        // It may end in half a record, which recovery considers damage once a newer file follows: so it is retired
        // first.
        await retire(current.path);
        outgoing.push(current.fd);
        current = undefined;
      }
      await syncFolder(folder, ops);
      for (const fd of outgoing.splice(0)) ops.closeSync(fd);
      folderChanged = false;
      group = beginGroup();
      failure = undefined;
    },
    async close() {
      closed = true;
      try {
        if (failure !== undefined) throw failure;
        failure = new JournalError("the journal is closed");
        await group.synced(seq);
      } finally {
        await group.stop();
        for (const fd of outgoing.splice(0)) ops.closeSync(fd);
        if (current !== undefined) ops.closeSync(current.fd);
        current = undefined;
      }
    },
  };
}

/**
 * Reads the journal in `folder` (created if it doesn't exist), passes every record to `onRecord`, then cuts off the
 * remains of an interrupted write at its end. Throws JournalDamage, with nothing changed, if the files cannot be
 * trusted.
 */
export async function recoverJournal(
  folder: string,
  onRecord: OnRecord,
  options: { readonly onFile?: OnFile; readonly coveredSeq?: number; readonly ops?: FileOps } = {},
): Promise<JournalContent> {
  const { onFile, coveredSeq, ops = diskOps } = options;
  await promises.mkdir(folder, { recursive: true, mode: 0o700 });
  await syncFolder(dirname(folder), ops);
  const content = readJournal(folder, onRecord, onFile, coveredSeq);
  if (content.blank !== undefined) {
    await ops.unlink(content.blank);
  } else if (content.torn !== undefined) {
    await cut(ops, content.torn.file, content.torn.offset);
  }
  return content;
}

/** The cut is synced before a newer file can be created: only the newest may be torn. */
async function cut(ops: FileOps, file: string, length: number): Promise<void> {
  const fd = await ops.open(file, constants.O_WRONLY | constants.O_NOFOLLOW, 0);
  try {
    ops.ftruncateSync(fd, length);
    await ops.fsync(fd);
  } finally {
    await ops.close(fd);
  }
}

/** Makes appended records durable, many at a time. */
interface GroupSync {
  /** Registers an appended record. Starts the timer if none is running; otherwise costs two additions. */
  appended(seq: number, bytes: number): void;
  /** Everything appended so far has been synced by other means. */
  syncedAll(): void;
  /** Resolves when a sync that started after record `seq` was appended is done; rejects if that sync fails. */
  synced(seq: number): Promise<void>;
  /** What a power loss would lose now. */
  lag(): { readonly records: number; readonly bytes: number };
  /** Stops the timer and waits for a running sync. */
  stop(): Promise<void>;
}

interface GroupSyncOptions {
  /** Syncs the files; never called concurrently, and never again once it has failed. */
  readonly sync: () => Promise<void>;
  /** How long a record may wait for its sync, in ms. */
  readonly intervalMs: number;
  /** Number of the last record already on disk. */
  readonly syncedSeq: number;
  readonly onFailure: (error: Error) => void;
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (reason: Error) => void;
}

/**
 * One sync at a time: callers during a sync share the next one. There is a timer only while something is unsynced, and
 * it doesn't keep the process alive. After a failure nothing is synced again: the kernel has dropped the pages that it
 * could not write, so a second sync would succeed without them.
 */
function createGroupSync({ sync, intervalMs, syncedSeq, onFailure }: GroupSyncOptions): GroupSync {
  let lastSeq = syncedSeq;
  let unsyncedBytes = 0;
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> | undefined;
  /**
   * Callers that wait for the running sync, which covers records up to `runningUpTo`, and those that wait for the next.
   */
  let served: Waiter[] = [];
  let waiting: Waiter[] = [];
  let runningUpTo = syncedSeq;
  let failure: Error | undefined;
  let stopped = false;

  function arm(): void {
    if (timer !== undefined || running !== undefined || failure !== undefined || stopped) return;
    timer = setTimeout(start, intervalMs);
    timer.unref();
  }

  function start(): void {
    clearTimeout(timer);
    timer = undefined;
    running ??= run();
  }

  async function run(): Promise<void> {
    served = waiting;
    waiting = [];
    runningUpTo = lastSeq;
    const bytes = unsyncedBytes;
    try {
      await sync();
    } catch (reason) {
      fail(reason);
      return;
    } finally {
      running = undefined;
    }
    // syncedAll() may have got further in the meantime.
    if (syncedSeq < runningUpTo) {
      syncedSeq = runningUpTo;
      unsyncedBytes -= bytes;
    }
    for (const waiter of served) waiter.resolve();
    if (waiting.length > 0) start();
    else if (lastSeq > syncedSeq) arm();
  }

  function fail(cause: unknown): void {
    const reason = cause instanceof Error ? cause : new Error(String(cause));
    failure = reason;
    for (const waiter of [...served, ...waiting]) waiter.reject(reason);
    waiting = [];
    onFailure(reason);
  }

  return {
    appended(seq, bytes) {
      lastSeq = seq;
      unsyncedBytes += bytes;
      if (timer === undefined) arm();
    },
    syncedAll() {
      syncedSeq = lastSeq;
      unsyncedBytes = 0;
    },
    synced(seq) {
      if (seq <= syncedSeq) return Promise.resolve();
      return new Promise((resolve, reject) => {
        if (failure !== undefined) {
          reject(failure);
          return;
        }
        const waiter = { resolve, reject };
        if (running !== undefined && seq <= runningUpTo) {
          served.push(waiter);
        } else {
          waiting.push(waiter);
          start();
        }
      });
    },
    lag: () => ({ records: lastSeq - syncedSeq, bytes: unsyncedBytes }),
    async stop() {
      stopped = true;
      clearTimeout(timer);
      timer = undefined;
      while (running !== undefined) await running;
    },
  };
}
