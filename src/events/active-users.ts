import type { Clock } from "../lib/clock.ts";
import { createGenerationMap } from "../lib/generation-map.ts";
import type { Sink } from "./bus.ts";

/** A user's activity since becoming active. Times in ms since the epoch. */
interface ActiveUser {
  readonly user: string;
  /** The first event after a pause as long as the window. */
  readonly since: number;
  readonly lastSeenAt: number;
  /** Chats that have ended, successful or not. */
  readonly chats: number;
  /** Chats whose code was not ok. */
  readonly failed: number;
  readonly logins: number;
}

export interface ActiveUsers {
  readonly sink: Sink;
  /** A user without events for so many ms is no longer active. */
  readonly windowMs: number;
  /** Users active within the window, most recent first. */
  list(): readonly ActiveUser[];
}

interface Counts extends ActiveUser {
  lastSeenAt: number;
  chats: number;
  failed: number;
  logins: number;
}

/**
 * Tracks recently active users, with counts since each became active. A failed login is no activity: anyone could cause
 * it. A chat counts once it has ended.
 *
 * @param options `maxUsers`: users remembered; beyond it the longest inactive are forgotten
 */
export function createActiveUsers(options: {
  readonly clock: Clock;
  readonly windowMs: number;
  readonly maxUsers?: number;
}): ActiveUsers {
  const { clock, windowMs, maxUsers = 10_000 } = options;
  const users = createGenerationMap<Counts>(
    maxUsers,
    () => windowMs,
    () => clock.monotonic(),
  );

  function touch(user: string, at: number): Counts {
    const known = users.get(user);
    const isActive = known !== undefined && at - known.lastSeenAt < windowMs;
    const counts = isActive ? known : { user, since: at, lastSeenAt: at, chats: 0, failed: 0, logins: 0 };
    counts.lastSeenAt = Math.max(counts.lastSeenAt, at);
    users.set(user, counts);
    return counts;
  }

  return {
    windowMs,
    sink(event) {
      if (event.type === "chat.finished") {
        const counts = touch(event.user, event.at);
        counts.chats += 1;
        if (event.code !== "ok") counts.failed += 1;
      } else if (event.type === "login.succeeded") touch(event.user, event.at).logins += 1;
    },
    list() {
      const now = clock.now();
      const active = [...users.values()].filter(({ lastSeenAt }) => now - lastSeenAt < windowMs);
      return active.map((counts) => ({ ...counts })).sort((a, b) => b.lastSeenAt - a.lastSeenAt);
    },
  };
}
