import type { Config } from "../../config/schema.ts";
import type { Clock } from "../../lib/clock.ts";
import type { RateLimiter, RateLimitRefusal, RateLimitRequest } from "../rate-limiter.ts";

/** A token bucket for each key. */
export interface LimitRule {
  /** Name in refusals and metrics. */
  readonly name: string;
  /** Tokens that come back each second. Twice as many may come in a burst (at least one). */
  readonly requestsPerSecond: number;
  /** Whose bucket a request takes from, null: from none. Absent: one bucket for all. */
  readonly keyOf?: (request: RateLimitRequest) => string | null;
}

/** The rules of a config, by the names under which refusals and metrics know them. */
export function limitRules(rates: Config["rate_limit"]): readonly LimitRule[] {
  const { requests_per_second: global, per_user: perUser, per_key: perKey } = rates;
  const rules: LimitRule[] = [{ name: "global", requestsPerSecond: global }];
  if (perUser !== undefined) rules.push({ name: "per_user", requestsPerSecond: perUser, keyOf: ({ user }) => user });
  if (perKey !== undefined) rules.push({ name: "per_key", requestsPerSecond: perKey, keyOf: ({ apiKey }) => apiKey });
  return rules;
}

interface Bucketed {
  readonly name: string;
  readonly rate: GcraRate;
  readonly keyOf: (request: RateLimitRequest) => string | null;
  /** Key to theoretical arrival time, the least recently used first. */
  readonly tats: Map<string, number>;
}

/**
 * A limiter in this process's memory: no timers, no locks, since one synchronous call is one decision.
 * Each rule remembers `maxKeys` keys; the one unused for the longest is forgotten, which gives it a full bucket.
 */
export function createMemoryRateLimiter(options: {
  readonly rules: readonly LimitRule[];
  readonly clock: Clock;
  readonly maxKeys?: number;
}): RateLimiter {
  const { clock, maxKeys = 10_000 } = options;
  const rules = options.rules.map(toBucketed);

  return {
    take(request) {
      const now = clock.monotonic();
      const refusal = longestWait(rules, request, now);
      if (refusal !== null) return refusal;
      for (const { rate, keyOf, tats } of rules) {
        const key = keyOf(request);
        if (key === null) continue;
        const tat = gcraTake(rate, tats.get(key) ?? -Infinity, now);
        remember(tats, key, tat, maxKeys);
      }
      return null;
    },
    giveBack(request) {
      for (const { rate, keyOf, tats } of rules) {
        const key = keyOf(request);
        const tat = key === null ? undefined : tats.get(key);
        if (key !== null && tat !== undefined) tats.set(key, gcraGiveBack(rate, tat));
      }
    },
  };
}

function toBucketed({ name, requestsPerSecond, keyOf = () => "" }: LimitRule): Bucketed {
  const burst = Math.max(1, 2 * requestsPerSecond);
  return { name, rate: gcraRate(requestsPerSecond, burst), keyOf, tats: new Map() };
}

function longestWait(rules: readonly Bucketed[], request: RateLimitRequest, now: number): RateLimitRefusal | null {
  let worst: RateLimitRefusal | null = null;
  for (const { name, rate, keyOf, tats } of rules) {
    const key = keyOf(request);
    if (key === null) continue;
    const retryAfterMs = gcraWaitMs(rate, tats.get(key) ?? -Infinity, now);
    if (retryAfterMs > (worst?.retryAfterMs ?? 0)) worst = { rule: name, retryAfterMs };
  }
  return worst;
}

function remember(tats: Map<string, number>, key: string, tat: number, maxKeys: number): void {
  // Out and in again moves the key to the young end. A rule without keys has one, which needs no moving.
  if (tats.size > 1) tats.delete(key);
  tats.set(key, tat);
  if (tats.size <= maxKeys) return;
  const [oldest] = tats.keys();
  if (oldest !== undefined) tats.delete(oldest);
}

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
function gcraGiveBack(rate: GcraRate, tat: number): number {
  return tat - rate.intervalMs;
}

/** ms until the bucket is full. Never more than an empty bucket owes, so a clock that jumps back locks nobody out. */
function owedMs(rate: GcraRate, tat: number, nowMs: number): number {
  return Math.min(Math.max(tat - nowMs, 0), rate.fullMs);
}
