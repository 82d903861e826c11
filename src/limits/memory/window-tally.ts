import type { Clock } from "../../lib/clock.ts";

/** Counts, for each user, something that may happen only so often within a time window. */
export interface WindowTally {
  /** Counts one more for a user. False, without counting it, if there have been `max` within the window. */
  take(user: string, max: number): boolean;
}

/**
 * A tally in this process's memory, over a sliding window of `windowMs`.
 * Remembers `maxUsers` users; the one counted least recently is forgotten, so that it starts again from zero.
 */
export function createWindowTally(options: {
  readonly windowMs: number;
  readonly clock: Clock;
  readonly maxUsers?: number;
}): WindowTally {
  const { windowMs, clock, maxUsers = 10_000 } = options;
  /** The times of each user's counts, in monotonic ms, the oldest first; the user counted least recently first. */
  const times = new Map<string, readonly number[]>();

  return {
    take(user, max) {
      const now = clock.monotonic();
      const recent = (times.get(user) ?? []).filter((at) => now - at < windowMs);
      if (recent.length >= max) return false;
      // Deleting and setting moves the user to the end of the map.
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
