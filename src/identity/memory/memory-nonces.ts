import type { Clock } from "../../lib/clock.ts";
import { maxSkewSeconds } from "../keys/request-signature.ts";
import type { Nonces } from "../nonces.ts";

/** Nonces in this process's memory. */
export interface MemoryNonces extends Nonces {
  use(keyId: string, nonce: string, timestamp: number): boolean;
}

/**
 * Creates the memory. It refuses requests signed before it was created: the nonces seen by the previous process are
 * unknown. If the clock is set back, times recur; those in which something was signed are then refused, all others are
 * accepted.
 */
export function createMemoryNonces(clock: Clock): MemoryNonces {
  const seconds = (): number => Math.floor(clock.now() / 1000);
  let since = seconds();
  const noncesOf = new Map<string, KeyNonces>();
  /** Times of keys that have not been used recently. */
  const forgotten = createForgottenTimes();

  function memoryOf(keyId: string, now: number): KeyNonces {
    const known = noncesOf.get(keyId);
    if (known !== undefined) return known;
    // Each new key removes those that have not been used recently.
    for (const [id, nonces] of noncesOf) {
      if (!nonces.isIdle(now)) continue;
      forgotten.addAll(nonces.forgotten);
      noncesOf.delete(id);
    }
    const nonces = createKeyNonces(2 * maxSkewSeconds + 1);
    noncesOf.set(keyId, nonces);
    return nonces;
  }

  return {
    use(keyId, nonce, timestamp) {
      const now = seconds();
      // The clock was ahead when the proxy was started; the previous process may have accepted signatures up to now.
      if (now < since - maxSkewSeconds) since = now;
      const isKnown = timestamp >= since && !forgotten.has(timestamp);
      return isKnown && memoryOf(keyId, now).use(nonce, timestamp, now);
    },
  };
}

/** Timestamps of signatures, in s since the epoch, whose nonces have been forgotten. */
interface ForgottenTimes {
  add(timestamp: number): void;
  has(timestamp: number): boolean;
  /** Adds all times of another set. */
  addAll(others: ForgottenTimes): void;
  /** Each covers times that are close together. */
  readonly ranges: readonly TimeRange[];
}

interface TimeRange {
  readonly from: number;
  readonly to: number;
}

/** Times no further apart than this form one range, in s. */
const maxGap = 600;
const maxRanges = 32;

/**
 * Creates an empty set. It keeps ranges rather than a single bound: if the clock was ahead for a while, some times are
 * far in the future, and today's must not count as forgotten with them.
 */
function createForgottenTimes(): ForgottenTimes {
  let ranges: readonly TimeRange[] = [];

  function addRange(range: TimeRange): void {
    const isNear = ({ from, to }: TimeRange) => range.from <= to + maxGap && range.to >= from - maxGap;
    const others = ranges.filter((one) => !isNear(one));
    ranges = [...others, spanOf([...ranges.filter(isNear), range])];
    // Forgetting too much refuses valid requests; forgetting too little would allow a replay.
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

/** Remembers the nonces of one key while their timestamps are valid, up to a bound. */
export interface KeyNonces {
  /**
   * Records a nonce.
   *
   * @param timestamp s since the epoch, from the request
   * @param now s since the epoch
   * @returns false if the nonce was used before, or if that is no longer known
   */
  use(nonce: string, timestamp: number, now: number): boolean;
  /** Whether it remembers nothing any more except `forgotten`. */
  isIdle(now: number): boolean;
  readonly forgotten: ForgottenTimes;
}

/**
 * Creates the memory. Beyond its bound it forgets the oldest nonces and refuses all timestamps between the first and
 * the last of these: a heavily used key gets a narrower window, but replay is never possible.
 *
 * @param keepSeconds how long after its use a nonce can still come in again with a valid timestamp
 */
export function createKeyNonces(keepSeconds: number, max = 10_000): KeyNonces {
  /** In order of use. */
  const seen = new Map<string, { readonly timestamp: number; readonly usedAt: number }>();
  const forgotten = createForgottenTimes();

  function forget(now: number): void {
    for (const [nonce, { timestamp, usedAt }] of seen) {
      // A use in the future was recorded before the clock was set back.
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
