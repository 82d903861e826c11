/** Makes appended records durable, many at a time. */
export interface GroupSync {
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

export interface GroupSyncOptions {
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
export function createGroupSync({ sync, intervalMs, syncedSeq, onFailure }: GroupSyncOptions): GroupSync {
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
