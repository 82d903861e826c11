/** The source of time, so that tests can control it. */
export interface Clock {
  /** Wall-clock time in ms since the epoch; may step backwards. */
  now(): number;
  /** Monotonic time in ms; only differences are meaningful. */
  monotonic(): number;
}

/** The system clocks. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
};
