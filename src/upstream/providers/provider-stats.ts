/** How many of the last answers are remembered. */
const remembered = 256;

/** Times to the first data event, in ms. */
export interface Latencies {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
}

/** What came of asking a provider lately: two rings and a few counts, so that an answer costs a few assignments. */
export class ProviderStats {
  /** Questions under way. */
  inFlight = 0;
  /** Questions ever asked. */
  asked = 0;
  /** Of these, how many were second or later attempts for the same request. */
  retries = 0;
  /** Questions that the provider ever failed. */
  failed = 0;
  readonly #firstEventMs = new Float64Array(remembered);
  #answers = 0;
  readonly #outcomes = new Uint8Array(remembered);
  #outcomeCount = 0;

  /** @param firstEventMs from the question to its first data event */
  answered(firstEventMs: number): void {
    this.#firstEventMs[this.#answers++ % remembered] = firstEventMs;
  }

  /** One more answer is over, well or not. */
  ended(failed: boolean): void {
    if (failed) this.failed++;
    this.#outcomes[this.#outcomeCount++ % remembered] = failed ? 1 : 0;
  }

  /** The last answers: how many there were, and how many of them failed. */
  outcomes(): { readonly total: number; readonly failed: number } {
    const total = Math.min(this.#outcomeCount, remembered);
    let failed = 0;
    for (let i = 0; i < total; i++) failed += this.#outcomes[i] ?? 0;
    return { total, failed };
  }

  /** The last times to the first event, in ms, unsorted. */
  firstEventTimes(): Float64Array {
    return this.#firstEventMs.slice(0, Math.min(this.#answers, remembered));
  }
}

/** Percentiles by nearest rank; null where there are no times. */
export function latenciesOf(times: Float64Array): Latencies | null {
  if (times.length === 0) return null;
  const sorted = times.slice().sort();
  const rank = (share: number): number => sorted[Math.ceil(share * sorted.length) - 1] ?? 0;
  return { p50: rank(0.5), p90: rank(0.9), p99: rank(0.99) };
}
