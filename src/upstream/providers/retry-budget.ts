/** Part of a retry that each first question earns: retries come to a fifth of them at the most. */
const share = 0.2;
/** What may be saved up, and what there is at the start, so that little traffic can retry at all. */
const reserve = 10;

/**
 * How often a provider may be asked again by requests that it has failed already. Without a bound, every request to a
 * dead provider would become several, at the worst of times.
 */
export class RetryBudget {
  #saved = reserve;

  /** A request asks for the first time. */
  earn(): void {
    if (this.#saved < reserve) this.#saved = Math.min(reserve, this.#saved + share);
  }

  /** Takes a retry, if there is one. */
  tryTake(): boolean {
    if (this.#saved < 1) return false;
    this.#saved--;
    return true;
  }
}
