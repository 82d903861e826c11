/** Why a line was dropped: the queue was full; its file could not be written; or the log was closed. */
export type DropReason = "queue_full" | "io_error" | "closed";

/** Waiting lines for one folder's log of one day. */
export interface Batch {
  readonly folder: string;
  readonly day: string;
  lines: string[];
  /** UTF-16 units, close enough to bytes. */
  length: number;
  /** Consecutive failures; 0 after a success. */
  failures: number;
  /** Monotonic ms until which a failed batch is not retried. */
  retryAt: number;
}

/** Lines waiting to be written, grouped by their file, and a count of those that did not fit. */
export interface BehaviourQueue {
  /** Adds a line; returns its batch, or null if it was dropped. */
  push(folder: string, day: string, line: string): Batch | null;
  /** Waiting lines, including those that are being written. */
  readonly size: number;
  /** All batches, the oldest first. */
  batches(): readonly Batch[];
  /** Takes the lines out of a batch for writing. Call `done` afterwards. */
  take(batch: Batch): string[];
  /** Reports how many of the lines taken were written; `rest` goes back to the head of the batch. */
  done(batch: Batch, written: number, rest: readonly string[]): void;
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
export function createBehaviourQueue(max: number): BehaviourQueue {
  const batches = new Map<string, Batch>();
  const dropped: Record<DropReason, number> = { queue_full: 0, io_error: 0, closed: 0 };
  const maxOfFailing = Math.max(1, Math.floor(max / 4));
  let size = 0;

  function batchOf(folder: string, day: string): Batch {
    const key = `${folder}/${day}`;
    const known = batches.get(key);
    if (known !== undefined) return known;
    const made = { folder, day, lines: [], length: 0, failures: 0, retryAt: -Infinity };
    batches.set(key, made);
    return made;
  }

  return {
    push(folder, day, line) {
      if (size >= max) {
        dropped.queue_full += 1;
        return null;
      }
      const batch = batchOf(folder, day);
      if (batch.failures > 0 && batch.lines.length >= maxOfFailing) {
        dropped.io_error += 1;
        return null;
      }
      batch.lines.push(line);
      batch.length += line.length;
      size += 1;
      return batch;
    },
    get size() {
      return size;
    },
    batches: () => [...batches.values()],
    take(batch) {
      const { lines } = batch;
      batch.lines = [];
      batch.length = 0;
      return lines;
    },
    done(batch, written, rest) {
      size -= written;
      if (rest.length > 0) {
        batch.lines = [...rest, ...batch.lines];
        batch.length = batch.lines.reduce((sum, line) => sum + line.length, 0);
      }
      if (batch.lines.length === 0) batches.delete(`${batch.folder}/${batch.day}`);
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
