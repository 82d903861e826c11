/** A provider that could not send for less than this, in ms, has not given up because of it. */
const briefMs = 50;
/** Bounds of a silence, in ms, after which what comes was not on its way before. */
const leastSilenceMs = 50;
const longestSilenceMs = 5000;
/** After reading without a pause for so long, in ms, nothing is on its way from before; longer after a longer hold. */
const leastFreeMs = 1000;

/**
 * Whether an answer is held back because its reader is behind, or was until so recently that its end may come of that:
 * a provider that cannot send may give up, and what it had sent before is still on its way then. Times are monotonic ms.
 */
export class Backpressure {
  #heldSince: number | null = null;
  /** How long the answer was held back, of late; 0 once that is over and done with. */
  #heldMs = 0;
  #releasedAt = 0;
  #receivedAt = 0;

  /** Whether heard() has anything to do. */
  get isSettling(): boolean {
    return this.#heldMs > 0 && this.#heldSince === null;
  }

  hold(now: number): void {
    this.#heldSince ??= now;
  }

  release(now: number): void {
    if (this.#heldSince === null) return;
    this.#heldMs += now - this.#heldSince;
    this.#heldSince = null;
    this.#releasedAt = this.#receivedAt = now;
  }

  /** Something has come from the provider. What comes after a silence, or after a while, shows that it is still there. */
  dataReceived(now: number): void {
    const silenceMs = Math.min(Math.max(leastSilenceMs, this.#heldMs / 10), longestSilenceMs);
    const freeMs = Math.max(leastFreeMs, this.#heldMs);
    if (now - this.#receivedAt > silenceMs || now - this.#releasedAt > freeMs) this.#heldMs = 0;
    this.#receivedAt = now;
  }

  /** Whether an answer that breaks off now may do so because it was held back. */
  mayHaveBrokenResponse(now: number): boolean {
    return this.#heldMs + (this.#heldSince === null ? 0 : now - this.#heldSince) >= briefMs;
  }
}
