import type { Clock } from "../../src/lib/clock.ts";

/** A clock that stands still until it is moved. Both of its times start at `startMs`. */
export interface ManualClock extends Clock {
  /** Moves both times by `ms`, which may be negative: then only the wall clock would do so on a real machine. */
  advance(ms: number): void;
}

export function createManualClock(startMs = 0): ManualClock {
  let time = startMs;
  return {
    now: () => time,
    monotonic: () => time,
    advance(ms) {
      time += ms;
    },
  };
}
