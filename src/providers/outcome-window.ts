/** Number of slices; the window moves by one slice at a time. */
const slices = 8;
/** Most users counted separately in a slice; with more, the provider is clearly failing. */
const maxUsers = 64;

/** Recent results of a provider: successes, and failures by user. Times are in ms of a monotonic clock. */
export class OutcomeWindow {
  readonly #sliceMs: number;
  readonly #successes = new Int32Array(slices);
  readonly #failures: (Map<string, number> | null)[] = Array.from({ length: slices }, () => null);
  /** Slices of time since the clock's zero. */
  #slice = 0;

  /** @param windowMs length of the window */
  constructor(windowMs: number) {
    this.#sliceMs = windowMs / slices;
  }

  succeeded(now: number): void {
    this.#count(now, 1);
  }

  /** @param succeededBefore whether the same request has been counted as a success before */
  failed(user: string, now: number, succeededBefore: boolean): void {
    this.#count(now, succeededBefore ? -1 : 0);
    const users = (this.#failures[this.#slice % slices] ??= new Map<string, number>());
    if (users.has(user) || users.size < maxUsers) users.set(user, (users.get(user) ?? 0) + 1);
  }

  /**
   * Whether there were so many failures, at least half of the requests, that the provider must be the cause.
   * @param users how many must have had failures; from 2 on, one user counts for at most half of `failures`
   */
  isFailing(failures: number, users: number, now: number): boolean {
    this.#moveTo(now);
    const byUser = new Map<string, number>();
    for (const slice of this.#failures) {
      for (const [user, count] of slice ?? []) byUser.set(user, (byUser.get(user) ?? 0) + count);
    }
    const most = users > 1 ? Math.ceil(failures / 2) : failures;
    let counted = 0;
    for (const count of byUser.values()) counted += Math.min(count, most);
    const successes = this.#successes.reduce((sum, count) => sum + count, 0);
    return byUser.size >= users && counted >= failures && counted >= successes;
  }

  /** Whether it has no results. */
  isEmpty(now: number): boolean {
    this.#moveTo(now);
    return this.#failures.every((users) => users === null) && this.#successes.every((count) => count === 0);
  }

  clear(): void {
    this.#successes.fill(0);
    this.#failures.fill(null);
  }

  #count(now: number, successes: number): void {
    this.#moveTo(now);
    const at = this.#slice % slices;
    this.#successes[at] = (this.#successes[at] ?? 0) + successes;
  }

  #moveTo(now: number): void {
    const slice = Math.floor(now / this.#sliceMs);
    if (slice === this.#slice) return;
    if (slice - this.#slice >= slices) this.clear();
    else {
      for (let passed = this.#slice + 1; passed <= slice; passed++) {
        this.#successes[passed % slices] = 0;
        this.#failures[passed % slices] = null;
      }
    }
    this.#slice = slice;
  }
}
