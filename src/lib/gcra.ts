/** A rate with a burst, worked out once. Build it with `gcraRate`. */
export interface GcraRate {
  /** ms in which one token comes back. */
  readonly intervalMs: number;
  /** ms in which an empty bucket fills up. */
  readonly fullMs: number;
}

/**
 * The generic cell rate algorithm: a token bucket whose whole state is one number, the theoretical arrival time (TAT),
 * which is when the bucket will be full again, in ms of a monotonic clock. No timer refills it and no lock guards it.
 * A bucket nobody has used yet has the TAT -Infinity.
 *
 * `perSecond` tokens come back each second, up to `burst`; both > 0, `burst` >= 1.
 */
export function gcraRate(perSecond: number, burst: number): GcraRate {
  const intervalMs = 1000 / perSecond;
  return { intervalMs, fullMs: burst * intervalMs };
}

/** How long until a token is there, in ms; 0 where one may be taken now. Changes nothing. */
export function gcraWaitMs(rate: GcraRate, tat: number, nowMs: number): number {
  const waitMs = owedMs(rate, tat, nowMs) + rate.intervalMs - rate.fullMs;
  // Sums of intervals are not exact in floating point: the last token of a burst must not fall to a rounding error.
  return waitMs <= rate.intervalMs * 1e-3 ? 0 : waitMs;
}

/** The TAT after a token is taken. Ask gcraWaitMs first. */
export function gcraTake(rate: GcraRate, tat: number, nowMs: number): number {
  return nowMs + owedMs(rate, tat, nowMs) + rate.intervalMs;
}

/** The TAT after a token that was taken is given back. Never fills a bucket beyond its burst. */
export function gcraGiveBack(rate: GcraRate, tat: number): number {
  return tat - rate.intervalMs;
}

/** ms until the bucket is full. Never more than an empty bucket owes, so a clock that jumps back locks nobody out. */
function owedMs(rate: GcraRate, tat: number, nowMs: number): number {
  return Math.min(Math.max(tat - nowMs, 0), rate.fullMs);
}
