/** Where the time comes from, so that tests can turn it. */
export interface Clock {
  /** Wall-clock time in ms since the epoch; may step backwards. */
  now(): number;
  /** Monotonic time in ms; only differences mean anything. */
  monotonic(): number;
}

/** The machine's own clocks. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
};
