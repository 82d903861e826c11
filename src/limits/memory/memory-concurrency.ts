import type { ConcurrencyLimiter, Permit } from "../concurrency.ts";
import type { Config } from "../../config/schema.ts";
import { AppError } from "../../errors.ts";
import { ClientDisconnectedError, type DisconnectSignal } from "../../lib/disconnect-signal.ts";

/** How requests queue for a permit. */
export interface QueueRule {
  /** How long a request may wait for a permit, in ms; 0: not at all. */
  readonly maxWaitMs: number;
  /** How many requests of one user may wait. */
  readonly maxWaiting: number;
}

/** The rule of a config. */
export function queueRule({ max_wait_ms, max_waiting }: Config["concurrency"]): QueueRule {
  return { maxWaitMs: max_wait_ms, maxWaiting: max_waiting };
}

/** A concurrency limiter whose rule can be changed while it runs. */
export interface MemoryConcurrency extends ConcurrencyLimiter {
  /** Uses another rule from now on. Permits stay valid, and requests in the queue wait as long as they were to. */
  configure(rule: QueueRule): void;
}

/** Keeps the permits in this process's memory. Users without held permits and waiting requests take no space. */
export function createMemoryConcurrency(options: QueueRule): MemoryConcurrency {
  let { maxWaitMs, maxWaiting } = options;
  const users = new Map<string, Semaphore>();
  const rejectors = new Set<(reason: Error) => void>();
  let held = 0;
  let closed = false;

  function semaphoreOf(user: string, max: number): Semaphore {
    const known = users.get(user);
    if (known === undefined) {
      const made = new Semaphore(max);
      users.set(user, made);
      return made;
    }
    known.resize(max);
    return known;
  }

  function forgetIfIdle(user: string, semaphore: Semaphore): void {
    if (semaphore.held === 0 && semaphore.waiting === 0) users.delete(user);
  }

  function issue(user: string, semaphore: Semaphore): Permit {
    held += 1;
    return new MemoryPermit(() => {
      held -= 1;
      semaphore.release();
      forgetIfIdle(user, semaphore);
    });
  }

  function wait(user: string, semaphore: Semaphore, signal: DisconnectSignal): Promise<Permit> {
    return new Promise((resolve, reject) => {
      const stopWaiting = (): void => {
        clearTimeout(timer);
        rejectors.delete(giveUp);
        signal.onGone = undefined;
      };
      const grant = (): void => {
        stopWaiting();
        resolve(issue(user, semaphore));
      };
      const giveUp = (reason: Error): void => {
        stopWaiting();
        semaphore.leave(grant);
        forgetIfIdle(user, semaphore);
        reject(reason);
      };
      const timer = setTimeout(() => {
        giveUp(exceeded());
      }, maxWaitMs);
      const onGone = (): void => {
        giveUp(new ClientDisconnectedError());
      };
      signal.onGone = onGone;
      rejectors.add(giveUp);
      semaphore.join(grant);
    });
  }

  return {
    configure(rule) {
      ({ maxWaitMs, maxWaiting } = rule);
    },
    acquire({ user, scopes }, signal) {
      if (closed) throw new AppError("shutting_down", { retryAfterSeconds: 1 });
      if (signal.gone) throw new ClientDisconnectedError();
      const max = scopes.find(({ kind }) => kind === "user")?.max ?? Infinity;
      const semaphore = semaphoreOf(user, max);
      if (semaphore.tryTake()) return issue(user, semaphore);
      if (maxWaitMs > 0 && semaphore.waiting < maxWaiting) return wait(user, semaphore, signal);
      forgetIfIdle(user, semaphore);
      throw exceeded();
    },
    inFlight: () => held,
    waiting: () => rejectors.size,
    close() {
      closed = true;
      for (const reject of rejectors) reject(new AppError("shutting_down", { retryAfterSeconds: 1 }));
    },
  };
}

class MemoryPermit implements Permit {
  readonly provider = null;
  #giveBack: (() => void) | undefined;

  constructor(giveBack: () => void) {
    this.#giveBack = giveBack;
  }

  move(): boolean {
    return true;
  }

  release(): void {
    const giveBack = this.#giveBack;
    this.#giveBack = undefined;
    giveBack?.();
  }
}

function exceeded(): AppError {
  return new AppError("concurrency_exceeded", { retryAfterSeconds: 1 });
}

/**
 * A number of permits, and a queue of waiting callers: first come, first served. A class because one is created for
 * most requests. Synchronous throughout; timeouts are the caller's responsibility.
 */
export class Semaphore {
  #max: number;
  #held = 0;
  /** Insertion order is the queue order; a Set so that removing one from the middle is cheap. */
  readonly #line = new Set<() => void>();

  constructor(max: number) {
    this.#max = max;
  }

  /** Permits in use. */
  get held(): number {
    return this.#held;
  }

  /** Number of waiting callers. */
  get waiting(): number {
    return this.#line.size;
  }

  /** Changes the number of permits. None is revoked: with fewer permits, the excess ends by release. */
  resize(max: number): void {
    this.#max = max;
    this.#serve();
  }

  /** Takes a permit if one is free. Waiting callers come first. */
  tryTake(): boolean {
    if (this.#line.size > 0 || this.#held >= this.#max) return false;
    this.#held += 1;
    return true;
  }

  /**
   * Joins the queue. `grant` is called once the caller has a permit, from inside another's release or resize; it must
   * not throw. Each call needs its own function: it also identifies the caller for `leave`.
   */
  join(grant: () => void): void {
    this.#line.add(grant);
  }

  /** Leaves the queue. Does nothing if `grant` was called already. */
  leave(grant: () => void): void {
    this.#line.delete(grant);
  }

  /** Returns a permit, exactly once for each one taken, and passes it to the first in the queue. */
  release(): void {
    this.#held -= 1;
    this.#serve();
  }

  #serve(): void {
    for (const grant of this.#line) {
      if (this.#held >= this.#max) return;
      this.#line.delete(grant);
      this.#held += 1;
      grant();
    }
  }
}
