/** Remembers the nonces of one key while their timestamps are good, up to a bound. */
export interface Nonces {
  /**
   * Takes note of a nonce.
   *
   * @param timestamp s since the epoch, as the request has it
   * @param now s since the epoch
   * @returns false where the nonce was used before, or where that can't be known any more
   */
  use(nonce: string, timestamp: number, now: number): boolean;
  /** Whether there is nothing to remember any more. */
  isIdle(now: number): boolean;
}

/**
 * Makes the memory. Beyond its bound the oldest are forgotten, and with them all timestamps up to theirs are refused:
 * so a key that is used very much gets a narrower window, and nobody gets a replay. The same holds for what was used
 * before the memory began.
 *
 * @param keepSeconds how long after its use a nonce can still come in again with a good timestamp
 * @param since s since the epoch: requests signed before are refused
 */
export function createNonces(keepSeconds: number, since: number, max = 10_000): Nonces {
  /** In order of use. */
  const seen = new Map<string, { readonly timestamp: number; readonly usedAt: number }>();
  let floor = since;

  function forget(now: number): void {
    for (const [nonce, { timestamp, usedAt }] of seen) {
      if (seen.size < max && usedAt + keepSeconds >= now) return;
      seen.delete(nonce);
      floor = Math.max(floor, timestamp + 1);
    }
  }

  return {
    use(nonce, timestamp, now) {
      forget(now);
      if (timestamp < floor || seen.has(nonce)) return false;
      seen.set(nonce, { timestamp, usedAt: now });
      return true;
    },
    isIdle(now) {
      forget(now);
      return seen.size === 0;
    },
  };
}
