/** A task that is called regularly. Returns false when it is done and must not be called again. */
export interface Ticking {
  /** `now` is monotonic, in ms. */
  tick(now: number): boolean;
}

/** One timer for all streams: a timer per stream would cost more than the streams. */
export interface Ticker {
  add(task: Ticking): void;
  remove(task: Ticking): void;
  /** Forgets all tasks and stops the timer. */
  close(): void;
}

/** Makes a ticker that runs only while it has tasks. `monotonic` gives ms. */
export function createTicker(intervalMs: number, monotonic: () => number): Ticker {
  const tasks = new Set<Ticking>();
  let timer: NodeJS.Timeout | undefined;

  function stopIfIdle(): void {
    if (tasks.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  }

  function tickAll(): void {
    const now = monotonic();
    for (const task of tasks) if (!task.tick(now)) tasks.delete(task);
    stopIfIdle();
  }

  return {
    add: (task) => {
      tasks.add(task);
      timer ??= setInterval(tickAll, intervalMs);
    },
    remove: (task) => {
      tasks.delete(task);
      stopIfIdle();
    },
    close: () => {
      tasks.clear();
      stopIfIdle();
    },
  };
}
