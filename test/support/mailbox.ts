/** Hands things from those who bring them to those who wait for them, in order. */
export interface Mailbox<T> {
  put(item: T): void;
  /** The next item; rejects after `waitMs`, naming what did not come. */
  take(waitMs?: number): Promise<T>;
}

/** `what` names the items in the error of a `take` that waited in vain. */
export function createMailbox<T>(what: string): Mailbox<T> {
  const items: T[] = [];
  const takers: ((item: T) => void)[] = [];
  return {
    put(item) {
      const taker = takers.shift();
      if (taker === undefined) items.push(item);
      else taker(item);
    },
    take(waitMs = 15_000) {
      if (items.length > 0) return Promise.resolve(items.shift() as T);
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          takers.splice(takers.indexOf(taker), 1);
          reject(new Error(`no ${what} within ${waitMs} ms`));
        }, waitMs);
        function taker(item: T): void {
          clearTimeout(timer);
          resolve(item);
        }
        takers.push(taker);
      });
    },
  };
}
