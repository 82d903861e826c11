import { type Slotted, SwapRemoveSet } from "../lib/swap-remove-set.ts";

/** The requests in progress. */
export interface RunningRequests<Request extends Slotted> {
  count(): number;
  all(): readonly Request[];
  add(request: Request): void;
  delete(request: Request): void;
  /** Resolves when no request is in progress. */
  whenIdle(): Promise<void>;
  /** Resolves when all requests have ended that are in progress now. */
  whenRunningEnd(): Promise<void>;
}

/** Those of some requests that have not ended yet, and what to call once all have. */
interface EndWaiter<Request> {
  readonly left: Set<Request>;
  readonly onEmpty: () => void;
}

export function createRunningRequests<Request extends Slotted>(): RunningRequests<Request> {
  const running = new SwapRemoveSet<Request>();
  const endWaiters = new Set<EndWaiter<Request>>();
  let idleWaiters: (() => void)[] = [];

  function endWaits(request: Request): void {
    for (const waiter of endWaiters) {
      waiter.left.delete(request);
      if (waiter.left.size > 0) continue;
      endWaiters.delete(waiter);
      waiter.onEmpty();
    }
  }

  return {
    count: () => running.size,
    all: () => running.items(),
    add(request) {
      running.add(request);
    },
    delete(request) {
      running.delete(request);
      if (endWaiters.size > 0) endWaits(request);
      if (running.size > 0) return;
      const waiters = idleWaiters;
      idleWaiters = [];
      for (const wake of waiters) wake();
    },
    whenIdle() {
      if (running.size === 0) return Promise.resolve();
      return new Promise((resolve) => idleWaiters.push(resolve));
    },
    whenRunningEnd() {
      const left = new Set(running.items());
      if (left.size === 0) return Promise.resolve();
      return new Promise((onEmpty) => endWaiters.add({ left, onEmpty }));
    },
  };
}
