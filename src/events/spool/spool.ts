import { promises } from "node:fs";
import { removeTemporaries } from "../../lib/files/atomic-file.ts";
import { type FileOps, diskOps } from "../../lib/files/file-ops.ts";
import { firstOf, segmentPath, segmentPaths } from "../../lib/journal/journal-folder.ts";
import { encodeRecord, maxRecordBytes } from "../../lib/journal/journal-format.ts";
import { createSegmentFile, JournalError, type SegmentFile } from "../../lib/journal/journal-segment.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { createSpoolReader, type OpenedReader, type SpoolReader } from "./spool-reader.ts";
import { type LossReason, openSegment, type SpoolSegment } from "./spool-segment.ts";

/**
 * Events on their way to outside systems: files in the journal's format, each event written once, read by every reader
 * at its own pace.
 */
export interface Spool {
  /**
   * Writes one event. The kernel has it when this returns, so a kill of the process loses nothing; a power loss may lose
   * the last second. Never throws: an event that can't be written is counted as lost for every reader.
   */
  append(text: string): void;
  reader(name: string): SpoolReader;
  /** Bytes of all files, and the number of the last event. */
  size(): { readonly bytes: number; readonly lastSeq: number };
  /** Saves all positions, syncs and closes. */
  close(): Promise<void>;
}

export interface SpoolOptions {
  readonly folder: string;
  /** Of all files together. */
  readonly maxBytes: number;
  /** Size at which a new file is started; at most a quarter of maxBytes. */
  readonly segmentBytes: number;
  /** Who reads. A file is removed once all of them have acknowledged what is in it. */
  readonly readers: readonly string[];
  readonly clock: Clock;
  readonly log: Log;
  /** Called with each loss; see LossReason. */
  readonly onLoss?: (reader: string, reason: LossReason, count: number) => void;
  readonly ops?: FileOps;
}

/** What a power loss may take, in ms. */
const syncMs = 1000;
/** A broken disk fails every event; that is logged only this often. */
const logEveryMs = 10_000;

/** Opens the spool in `folder`, which is created if it is missing. One process at a time. Rejects with Node's errors. */
export async function openSpool(options: SpoolOptions): Promise<Spool> {
  const { folder, maxBytes, readers: names, clock, log, ops = diskOps, onLoss = () => undefined } = options;
  const segmentBytes = Math.min(options.segmentBytes, Math.floor(maxBytes / 4));
  await promises.mkdir(folder, { recursive: true, mode: 0o700 });
  await removeTemporaries(folder, ".position");
  const segments = await findSegments(folder);
  const opened = new Map<string, OpenedReader>();
  for (const name of names) {
    opened.set(
      name,
      await createSpoolReader({
        ...{ name, folder, segments, log, ops, lastSeq: () => seq },
        onLoss: (reason, count) => {
          onLoss(name, reason, count);
        },
        onSaved: release,
      }),
    );
  }
  const readers = [...opened.values()];
  // A reader may be ahead of files that a power loss has shortened: numbers that it has read must not be used again.
  let seq = Math.max(segments.at(-1)?.last ?? 0, ...readers.map((reader) => reader.saved()));
  const buffer = Buffer.allocUnsafe(maxRecordBytes);
  let bytes = segments.reduce((sum, segment) => sum + segment.bytes, 0);
  let current: { readonly file: SegmentFile; readonly segment: SpoolSegment } | undefined;
  let unsynced = false;
  let syncing: Promise<void> = Promise.resolve();
  let closed = false;
  let loggedAt = -Infinity;
  const ticking = setInterval(syncSoon, syncMs);
  ticking.unref();

  function loseForAll(reason: LossReason, count: number): void {
    for (const reader of readers) reader.lose(reason, count);
  }

  function logTrouble(err: unknown, message: string): void {
    const now = clock.monotonic();
    if (now - loggedAt < logEveryMs) return;
    loggedAt = now;
    log.error({ event: "spool.failed", err }, message);
  }

  /** The file for the next record, of so many bytes. Throws JournalError. */
  function openCurrent(length: number): { readonly file: SegmentFile; readonly segment: SpoolSegment } {
    if (current !== undefined && current.file.size() + length <= segmentBytes) return current;
    while (bytes + segmentBytes > maxBytes && segments.length > 0) dropOldest();
    const path = segmentPath(folder, seq + 1);
    const file = createSegmentFile(ops, path, { first: seq + 1, previous: seq });
    leaveCurrent();
    const segment = { path, first: seq + 1, last: seq, bytes: file.size() };
    segments.push(segment);
    bytes += segment.bytes;
    current = { file, segment };
    return current;
  }

  /** Syncs the file that is not written any more, and closes it. */
  function leaveCurrent(): void {
    const left = current?.file.fd;
    current = undefined;
    if (left === undefined) return;
    sync(left);
    syncing = syncing.finally(() => {
      ops.closeSync(left);
    });
  }

  /** Removes the oldest file, read or not. */
  function dropOldest(): void {
    const oldest = segments[0];
    if (oldest === undefined) return;
    if (oldest === current?.segment) leaveCurrent();
    try {
      ops.unlinkSync(oldest.path);
    } catch (error) {
      // It is given up even so: the limit is what protects the disk, and the next start finds the file again.
      logTrouble(error, "a file of the spool could not be removed");
    }
    forget(oldest);
    for (const reader of readers) reader.dropped(oldest);
  }

  function forget(segment: SpoolSegment): void {
    segments.splice(segments.indexOf(segment), 1);
    bytes -= segment.bytes;
  }

  /** Removes the files that all readers have read, by their saved positions. */
  function release(): void {
    const read = Math.min(...readers.map((reader) => reader.saved()));
    for (const segment of segments.filter((one) => one.last <= read && one !== current?.segment)) {
      forget(segment);
      ops.unlink(segment.path).catch((error: unknown) => {
        logTrouble(error, "a file of the spool could not be removed");
      });
    }
  }

  function sync(fd: number): void {
    syncing = syncing
      .then(() => ops.fdatasync(fd))
      .catch((error: unknown) => {
        // The events are still there for readers; only a power loss could take them.
        logTrouble(error, "the spool could not be synced");
      });
  }

  function syncSoon(): void {
    if (!unsynced || current === undefined) return;
    unsynced = false;
    sync(current.file.fd);
  }

  function write(text: string): void {
    const length = encodeRecord(buffer, seq + 1, text);
    const { file, segment } = openCurrent(length);
    file.append(buffer, length);
    seq += 1;
    segment.last = seq;
    segment.bytes += length;
    bytes += length;
    unsynced = true;
  }

  release();
  return {
    append(text) {
      if (closed) {
        loseForAll("closed", 1);
        return;
      }
      try {
        write(text);
      } catch (error) {
        if (!(error instanceof JournalError)) {
          loseForAll("too_large", 1);
          return;
        }
        // Half a record may be at the end of the file: readers stop before it and go on with the next file.
        if (error.final) leaveCurrent();
        loseForAll("disk", 1);
        logTrouble(error, "the spool could not be written: events for outside systems are lost");
        return;
      }
      for (const reader of readers) reader.appended();
    },
    reader(name) {
      const reader = opened.get(name);
      if (reader === undefined) throw new RangeError(`the spool has no reader ${name}`);
      return reader;
    },
    size: () => ({ bytes, lastSeq: seq }),
    async close() {
      if (closed) return;
      closed = true;
      clearInterval(ticking);
      for (const reader of readers) await reader.close();
      leaveCurrent();
      await syncing;
    },
  };
}

/** What the folder has, oldest first. Files without a record are removed. */
async function findSegments(folder: string): Promise<SpoolSegment[]> {
  const paths = segmentPaths(folder);
  const segments: SpoolSegment[] = [];
  for (const [index, path] of paths.entries()) {
    const first = firstOf(path);
    const next = paths[index + 1];
    const { size } = await promises.stat(path);
    const last = next === undefined ? await lastOf(path, first, size) : firstOf(next) - 1;
    if (last < first) await promises.unlink(path);
    else segments.push({ path, first, last, bytes: size });
  }
  return segments;
}

async function lastOf(path: string, first: number, size: number): Promise<number> {
  const scan = await openSegment(path, first);
  try {
    while (!(await scan.next(Infinity, size)).isDone);
    return scan.seq();
  } finally {
    await scan.close();
  }
}
