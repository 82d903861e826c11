import type { Clock } from "../lib/clock.ts";
import { createGenerationMap } from "../lib/generation-map.ts";
import type { Sink } from "./bus.ts";

/** What a user has done since becoming active. Times in ms since the epoch. */
interface ActiveUser {
  readonly user: string;
  /** The first event after a silence as long as the window. */
  readonly since: number;
  readonly lastSeenAt: number;
  /** Chats that have ended, well or not. */
  readonly chats: number;
  /** Those of them whose code was not ok. */
  readonly failed: number;
  readonly logins: number;
}

export interface ActiveUsers {
  readonly sink: Sink;
  /** After so many ms without a sign somebody is no longer active. */
  readonly windowMs: number;
  /** Who was active within the window, the latest first. */
  list(): readonly ActiveUser[];
}

interface Counts extends ActiveUser {
  lastSeenAt: number;
  chats: number;
  failed: number;
  logins: number;
}

/**
 * Keeps who has been active lately, with counts since each of them became so. A failed login is no activity: anyone
 * could bring it about. Chats that still run are not seen here before they end.
 *
 * @param options `maxUsers`: users remembered; beyond it those silent for longest are forgotten
 */
export function createActiveUsers(options: {
  readonly clock: Clock;
  readonly windowMs: number;
  readonly maxUsers?: number;
}): ActiveUsers {
  const { clock, windowMs, maxUsers = 10_000 } = options;
  const users = createGenerationMap<Counts>(maxUsers, windowMs, () => clock.monotonic());

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
