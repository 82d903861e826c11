/** Runs tasks of the same key one after another, and tasks of different keys concurrently. */
export interface KeyedQueue {
  run<T>(key: string, task: () => Promise<T>): Promise<T>;
  /** Resolves once all tasks queued so far have ended. */
  idle(): Promise<void>;
}

/** Creates a queue; it keeps a key only while a task of it waits or runs. */
export function createKeyedQueue(): KeyedQueue {
  const tails = new Map<string, Promise<unknown>>();

  return {
    run: (key, task) => {
      const done = (tails.get(key) ?? Promise.resolve()).then(task);
      const tail = done.then(
        () => undefined,
        () => undefined,
      );
      tails.set(key, tail);
      void tail.then(() => {
        if (tails.get(key) === tail) tails.delete(key);
      });
      return done;
    },
    idle: async () => {
      await Promise.all(tails.values());
    },
  };
}
