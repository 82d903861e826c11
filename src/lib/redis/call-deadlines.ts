import { RedisUnavailableError } from "./redis.ts";

/** Ends the wait for answers that do not come, with one timer for all of them. */
export interface CallDeadlines {
  /** The answer, or RedisUnavailableError at the deadline (monotonic ms): the call may still take effect then. */
  before<T>(deadline: number, answer: Promise<T>): Promise<T>;
  /** How many are waited for. */
  count(): number;
  /** Rejects all of them. */
  close(): void;
}

interface Waiting {
  readonly deadline: number;
  reject: (error: Error) => void;
  isOver: boolean;
}

/** Every so many ms the oldest are looked at. */
const tickMs = 50;

/** @param monotonic monotonic ms */
export function createCallDeadlines(monotonic: () => number): CallDeadlines {
  // In the order of their start, which is nearly that of their deadlines: a repeated call has less time, and is
  // noticed at most one timeout late.
  let waiting: Waiting[] = [];
  let open = 0;
  let closed = false;
  const ticking = setInterval(expire, tickMs).unref();

  function expire(): void {
    const now = monotonic();
    waiting = waiting.filter((one) => {
      if (one.isOver) return false;
      if (one.deadline > now) return true;
      end(one, new RedisUnavailableError("Redis did not answer in time"));
      return false;
    });
  }

  function end(one: Waiting, error: Error): void {
    one.isOver = true;
    open--;
    one.reject(error);
  }

  return {
    before(deadline, answer) {
      if (closed) {
        answer.catch(() => undefined);
        return Promise.reject(new RedisUnavailableError("the connection to Redis is closed"));
      }
      return new Promise((resolve, reject) => {
        const one: Waiting = { deadline, reject, isOver: false };
        waiting.push(one);
        open++;
        const settle = (): boolean => {
          if (one.isOver) return false;
          one.isOver = true;
          open--;
          return true;
        };
        answer.then(
          (value) => {
            if (settle()) resolve(value);
          },
          (error: unknown) => {
            if (settle()) reject(error instanceof Error ? error : new Error(String(error)));
          },
        );
      });
    },
    count: () => open,
    close() {
      closed = true;
      clearInterval(ticking);
      for (const one of waiting)
        if (!one.isOver) end(one, new RedisUnavailableError("the connection to Redis is closed"));
      waiting = [];
    },
  };
}
