/** The source of time, so that tests can control it. */
export interface Clock {
  /** Wall-clock time in ms since the epoch; may step backwards. */
  now(): number;
  /** Monotonic time in ms; only differences are meaningful. */
  monotonic(): number;
}

/** A clock that shows more is wrong: files and JSON have no years of five digits, and periods end later than now. */
const latestMs = Date.parse("9999-01-01T00:00:00Z");

/** The system clocks. */
export const systemClock: Clock = {
  now: () => Math.min(Date.now(), latestMs),
  monotonic: () => performance.now(),
};
