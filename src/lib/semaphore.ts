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
