/**
 * Places that can be held at the same time, and a line for those who wait for one: first come, first served.
 * A class because one is made for most requests. Synchronous throughout; who waits how long is the caller's business.
 */
export class Semaphore {
  #max: number;
  #held = 0;
  /** Insertion order is the line; a Set so that one in the middle can leave it cheaply. */
  readonly #line = new Set<() => void>();

  constructor(max: number) {
    this.#max = max;
  }

  /** Places taken now. */
  get held(): number {
    return this.#held;
  }

  /** How many stand in line. */
  get waiting(): number {
    return this.#line.size;
  }

  /** Changes the number of places. Nobody is turned out: with fewer places, those held above it run out by release. */
  resize(max: number): void {
    this.#max = max;
    this.#serve();
  }

  /** Takes a place if one is free. Whoever stands in line goes first. */
  tryTake(): boolean {
    if (this.#line.size > 0 || this.#held >= this.#max) return false;
    this.#held += 1;
    return true;
  }

  /**
   * Joins the line. `grant` is called once the place is the caller's, from inside another's release or resize;
   * it must not throw. Each call needs a function of its own: it is also the name by which `leave` finds it.
   */
  join(grant: () => void): void {
    this.#line.add(grant);
  }

  /** Leaves the line. Does nothing where `grant` was called already. */
  leave(grant: () => void): void {
    this.#line.delete(grant);
  }

  /** Gives a place back, exactly once for each that was taken, and hands it to the first in line. */
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
