import type { Clock } from "../lib/clock.ts";

/** Counts, for each user, what may happen so many times in a span of time. */
export interface WindowTally {
  /** Counts one more of a user's. False, and then it is not counted, where there have been too many. */
  take(user: string): boolean;
}

/**
 * A tally in this process's memory, over a window that slides: in no span of `windowMs` are there more than `max`.
 * Remembers `maxUsers` users; the one that was counted least recently is forgotten, which gives it a fresh start.
 */
export function createWindowTally(options: {
  readonly max: number;
  readonly windowMs: number;
  readonly clock: Clock;
  readonly maxUsers?: number;
}): WindowTally {
  const { max, windowMs, clock, maxUsers = 10_000 } = options;
  /** When each user's were counted, in monotonic ms, the oldest first; the user counted least recently first. */
  const times = new Map<string, readonly number[]>();

  return {
    take(user) {
      const now = clock.monotonic();
      const recent = (times.get(user) ?? []).filter((at) => now - at < windowMs);
      if (recent.length >= max) return false;
      // Out and in again moves the user to the young end.
      times.delete(user);
      times.set(user, [...recent, now]);
      if (times.size > maxUsers) {
        const [oldest] = times.keys();
        if (oldest !== undefined) times.delete(oldest);
      }
      return true;
    },
  };
}
