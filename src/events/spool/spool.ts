import { promises } from "node:fs";
import { removeTemporaries } from "../../lib/files/atomic-file.ts";
import { type FileOps, diskOps } from "../../lib/files/file-ops.ts";
import { firstOf, segmentPath, segmentPaths } from "../../lib/journal/journal-folder.ts";
import { encodeRecord, maxRecordBytes } from "../../lib/journal/journal-format.ts";
import {
  createSegmentFile,
  createSegmentFileLater,
  JournalError,
  type SegmentFile,
} from "../../lib/journal/journal-segment.ts";
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
   * the last second. Once a write has been slow, events wait in memory instead, a bounded number of bytes, and are written
   * without holding up the caller. Never throws: an event that can't be written is counted as lost for every reader.
   */
  append(text: string): void;
  reader(name: string): SpoolReader;
  /** Bytes of all files, the number of the last event, and the bytes of those that wait in memory. */
  size(): { readonly bytes: number; readonly lastSeq: number; readonly waitingBytes: number };
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
/** A write that takes longer, in ms, has waited for the disk, or for the processor on a machine that is busy. */
const slowMs = 20;
/** Such writes may hold up requests for so many ms in a second; then nobody waits for them any more. */
const heldUpMs = 150;
/** How long writes must have been quick, in ms, before the caller waits for them again. */
const calmMs = 30_000;
/** Most that waits in memory for a slow disk; more events are lost. */
const maxWaitingBytes = 16 << 20;
/** Of one write that nobody waits for, and at most what goes into a file, unless a single event is longer. */
const batchBytes = 256 << 10;
/** More than a record has beside its text, in bytes. */
const recordOverhead = 64;
/** A broken disk fails every event; that is logged only this often. */
const logEveryMs = 10_000;

const unwritten = "the spool could not be written: events for outside systems are lost";

/** The file that is written. */
interface Current {
  readonly file: SegmentFile;
  readonly segment: SpoolSegment;
}

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
        name,
        folder,
        segments,
        log,
        ops,
        lastSeq: () => seq,
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
  let current: Current | undefined;
  let unsynced = false;
  /** Syncs that have not ended. */
  let syncs = 0;
  let syncing: Promise<void> = Promise.resolve();
  let closed = false;
  let loggedAt = -Infinity;
  /** Events that wait for a slow disk. */
  let waiting: string[] = [];
  let waitingBytes = 0;
  /** Monotonic ms of the latest slow write that nobody waited for, or of the one that has made it so. */
  let slowAt = -Infinity;
  /** What slow writes have held up since a time, both in ms. */
  let heldUp = { since: -Infinity, ms: 0 };
  let draining: Promise<void> | undefined;
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
  function openCurrent(length: number): Current {
    if (current !== undefined && current.segment.bytes + length <= segmentBytes) return current;
    while (bytes + segmentBytes > maxBytes && segments.length > 0) dropOldest(unlinkNow);
    const path = segmentPath(folder, seq + 1);
    return begin(createSegmentFile(ops, path, { first: seq + 1, previous: seq }), path);
  }

  /** The same without holding up the caller. Rejects with Node's errors. */
  async function openCurrentLater(length: number): Promise<Current> {
    if (current !== undefined && current.segment.bytes + length <= segmentBytes) return current;
    while (bytes + segmentBytes > maxBytes && segments.length > 0) dropOldest(unlinkLater);
    const path = segmentPath(folder, seq + 1);
    return begin(await createSegmentFileLater(ops, path, { first: seq + 1, previous: seq }), path);
  }

  function begin(file: SegmentFile, path: string): Current {
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

  /** Removes the oldest file, read or not. It is given up even where that fails: the next start finds the file again. */
  function dropOldest(unlink: (path: string) => void): void {
    const oldest = segments[0];
    if (oldest === undefined) return;
    if (oldest === current?.segment) leaveCurrent();
    unlink(oldest.path);
    forget(oldest);
    for (const reader of readers) reader.dropped(oldest);
  }

  function unlinkNow(path: string): void {
    try {
      ops.unlinkSync(path);
    } catch (error) {
      logTrouble(error, "a file of the spool could not be removed");
    }
  }

  function unlinkLater(path: string): void {
    ops.unlink(path).catch((error: unknown) => {
      logTrouble(error, "a file of the spool could not be removed");
    });
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
      unlinkLater(segment.path);
    }
  }

  function sync(fd: number): void {
    syncs += 1;
    syncing = syncing
      .then(() => ops.fdatasync(fd))
      .catch((error: unknown) => {
        // The events are still there for readers; only a power loss could take them.
        logTrouble(error, "the spool could not be synced");
      })
      .then(() => {
        syncs -= 1;
      });
  }

  function syncSoon(): void {
    // A disk that hangs gets one at a time.
    if (!unsynced || syncs > 0 || current === undefined) return;
    unsynced = false;
    sync(current.file.fd);
  }

  function write(text: string): void {
    const length = encodeRecord(buffer, seq + 1, text);
    const { file, segment } = openCurrent(length);
    file.append(buffer, length);
    added(segment, 1, length);
  }

  function added(segment: SpoolSegment, count: number, length: number): void {
    seq += count;
    segment.last = seq;
    segment.bytes += length;
    bytes += length;
    unsynced = true;
  }

  /** Writes one event while the caller waits. */
  function writeNow(text: string): void {
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
      logTrouble(error, unwritten);
      return;
    }
    for (const reader of readers) reader.appended();
  }

  /** Somebody has waited so long for a write. */
  function holdUp(ms: number): void {
    const now = clock.monotonic();
    if (now - heldUp.since > 1000) heldUp = { since: now - ms, ms: 0 };
    heldUp.ms += ms;
    if (heldUp.ms < heldUpMs) return;
    slowAt = now;
    log.warn({ event: "spool.slow", ms: Math.round(heldUp.ms) }, "the spool's disk is slow: events wait in memory");
  }

  function wait(text: string): void {
    if (waitingBytes + text.length > maxWaitingBytes) {
      loseForAll("disk", 1);
      logTrouble(undefined, "the spool's disk is too slow: events for outside systems are lost");
      return;
    }
    waiting.push(text);
    waitingBytes += text.length;
    // A little later, so that what comes with it is in the same write.
    draining ??= Promise.resolve().then(drain);
  }

  /** Writes what waits, without holding up anybody. Never rejects. */
  async function drain(): Promise<void> {
    while (waiting.length > 0) {
      const startedAt = clock.monotonic();
      await writeLater();
      const now = clock.monotonic();
      if (now - startedAt > slowMs) slowAt = now;
    }
    draining = undefined;
  }

  async function writeLater(): Promise<void> {
    const batch = Buffer.allocUnsafe(batchBytes + maxRecordBytes);
    let [taken, count, length] = [0, 0, 0];
    for (const text of waiting) {
      if (length > 0 && length + 3 * text.length + recordOverhead > Math.min(batchBytes, segmentBytes)) break;
      taken += 1;
      waitingBytes -= text.length;
      try {
        length += encodeRecord(batch.subarray(length), seq + 1 + count, text);
        count += 1;
      } catch {
        loseForAll("too_large", 1);
      }
    }
    waiting = waiting.slice(taken);
    if (count === 0) return;
    let segment: SpoolSegment | undefined;
    try {
      const open = await openCurrentLater(length);
      ({ segment } = open);
      await open.file.appendLater(batch, length);
      added(segment, count, length);
    } catch (error) {
      logTrouble(error, unwritten);
      if (segment === undefined || !(error instanceof JournalError) || !error.final) {
        loseForAll("disk", count);
        return;
      }
      // Some of the records may be in the file: their numbers are not used again, and readers find what is missing.
      leaveCurrent();
      added(segment, count, 0);
    }
    for (const reader of readers) reader.appended();
  }

  release();
  return {
    append(text) {
      if (closed) {
        loseForAll("closed", 1);
        return;
      }
      const startedAt = clock.monotonic();
      if (draining !== undefined || startedAt - slowAt < calmMs) {
        wait(text);
        return;
      }
      writeNow(text);
      const tookMs = clock.monotonic() - startedAt;
      if (tookMs > slowMs) holdUp(tookMs);
    },
    reader(name) {
      const reader = opened.get(name);
      if (reader === undefined) throw new RangeError(`the spool has no reader ${name}`);
      return reader;
    },
    size: () => ({ bytes, lastSeq: seq, waitingBytes }),
    async close() {
      if (closed) return;
      closed = true;
      clearInterval(ticking);
      await draining;
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
