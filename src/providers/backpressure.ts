/** Shortest hold, in ms, that can make a provider give up. */
const briefMs = 50;
/** Bounds of the silence, in ms, after which new data was sent after the hold. */
const leastSilenceMs = 50;
const longestSilenceMs = 5000;
/** After reading for at least this long, in ms, no data from before is still in transit; longer after a longer hold. */
const leastFreeMs = 1000;

/**
 * Tracks whether a response is held back because its reader is behind, or was so recently that this may cause its end:
 * a provider that can't send may give up, while data it sent earlier is still in transit. Times are monotonic ms.
 */
export class Backpressure {
  #heldSince: number | null = null;
  /** How long the response was held back recently; 0 once that can no longer have an effect. */
  #heldMs = 0;
  #releasedAt = 0;
  #receivedAt = 0;

  /** Whether dataReceived() must be called. */
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

  /**
   * Data arrived from the provider. After a silence, or after a while, this proves that the provider is still there.
   */
  dataReceived(now: number): void {
    const silenceMs = Math.min(Math.max(leastSilenceMs, this.#heldMs / 10), longestSilenceMs);
    const freeMs = Math.max(leastFreeMs, this.#heldMs);
    if (now - this.#receivedAt > silenceMs || now - this.#releasedAt > freeMs) this.#heldMs = 0;
    this.#receivedAt = now;
  }

  /** Whether a response that breaks off now may do so because it was held back. */
  mayHaveBrokenResponse(now: number): boolean {
    return this.#heldMs + (this.#heldSince === null ? 0 : now - this.#heldSince) >= briefMs;
  }
}
