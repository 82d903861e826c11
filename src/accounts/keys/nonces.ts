/** Timestamps of signatures, in s since the epoch, of which it is not known any more by which nonces they were used. */
export interface ForgottenTimes {
  add(timestamp: number): void;
  has(timestamp: number): boolean;
  /** Takes in all times of another one. */
  addAll(others: ForgottenTimes): void;
  /** From the first to the last of times that lie close together. */
  readonly ranges: readonly TimeRange[];
}

interface TimeRange {
  readonly from: number;
  readonly to: number;
}

/** Times no further apart than this are one range, in s. */
const maxGap = 600;
const maxRanges = 32;

/**
 * Makes an empty set. It keeps ranges rather than a single bound: by a clock that was ahead for a while some times lie
 * far in the future, and those of today must not count as forgotten with them.
 */
export function createForgottenTimes(): ForgottenTimes {
  let ranges: readonly TimeRange[] = [];

  function addRange(range: TimeRange): void {
    const isNear = ({ from, to }: TimeRange) => range.from <= to + maxGap && range.to >= from - maxGap;
    const others = ranges.filter((one) => !isNear(one));
    ranges = [...others, spanOf([...ranges.filter(isNear), range])];
    // Too much forgotten refuses honest requests; too little would let one in twice.
    if (ranges.length > maxRanges) ranges = [spanOf(ranges.slice(0, 2)), ...ranges.slice(2)];
  }

  return {
    add(timestamp) {
      if (!this.has(timestamp)) addRange({ from: timestamp, to: timestamp });
    },
    has: (timestamp) => ranges.some(({ from, to }) => timestamp >= from && timestamp <= to),
    addAll(others) {
      for (const range of others.ranges) addRange(range);
    },
    get ranges() {
      return ranges;
    },
  };
}

function spanOf(ranges: readonly TimeRange[]): TimeRange {
  return {
    from: Math.min(...ranges.map(({ from }) => from)),
    to: Math.max(...ranges.map(({ to }) => to)),
  };
}

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
  /** Whether there is nothing to remember any more but `forgotten`. */
  isIdle(now: number): boolean;
  readonly forgotten: ForgottenTimes;
}

/**
 * Makes the memory. Beyond its bound the oldest are forgotten, and with them all timestamps between the first and the
 * last of these are refused: so a key that is used very much gets a narrower window, and nobody gets a replay.
 *
 * @param keepSeconds how long after its use a nonce can still come in again with a good timestamp
 */
export function createNonces(keepSeconds: number, max = 10_000): Nonces {
  /** In order of use. */
  const seen = new Map<string, { readonly timestamp: number; readonly usedAt: number }>();
  const forgotten = createForgottenTimes();

  function forget(now: number): void {
    for (const [nonce, { timestamp, usedAt }] of seen) {
      // What was used in the future was used by a clock that has been set back.
      if (seen.size < max && Math.abs(now - usedAt) <= keepSeconds) return;
      seen.delete(nonce);
      forgotten.add(timestamp);
    }
  }

  return {
    use(nonce, timestamp, now) {
      forget(now);
      if (seen.has(nonce) || forgotten.has(timestamp)) return false;
      seen.set(nonce, { timestamp, usedAt: now });
      return true;
    },
    isIdle(now) {
      forget(now);
      return seen.size === 0;
    },
    forgotten,
  };
}
