import type { Config } from "../../config/schema.ts";
import type { Clock } from "../../lib/clock.ts";
import { createWindowTally } from "./window-tally.ts";
import type { RateLimiter, RateLimitRefusal, RateLimitRequest, RateTicket } from "../rate-limiter.ts";

const hourMs = 3_600_000;

/** A rule with one token bucket for each key. */
export interface LimitRule {
  /** Name in rejections and metrics. */
  readonly name: string;
  /** Tokens added each second. A burst may take twice as many (at least one). */
  readonly requestsPerSecond: number;
  /** The key of the bucket that a request takes from; null: no bucket. Absent: one bucket for all. */
  readonly keyOf?: (request: RateLimitRequest) => string | null;
}

/** The rules of a config, with the names that rejections and metrics use. */
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

/** A rate limiter whose rules can be changed while it runs. */
export interface MemoryRateLimiter extends RateLimiter {
  /**
   * Uses other rules from now on. A rule that stays, by name, keeps its buckets: each is as full as before, as a share of
   * its burst.
   */
  configure(rules: readonly LimitRule[]): void;
}

/**
 * A rate limiter in this process's memory: no timers and no locks, since each decision is one synchronous call.
 * Each rule remembers `maxKeys` keys; the one unused for the longest is forgotten, so that its bucket is full again.
 */
export function createMemoryRateLimiter(options: {
  readonly rules: readonly LimitRule[];
  readonly clock: Clock;
  readonly maxKeys?: number;
}): MemoryRateLimiter {
  const { clock, maxKeys = 10_000 } = options;
  let rules = options.rules.map((rule) => toBucketed(rule));
  const freeDisconnects = createWindowTally({ windowMs: hourMs, clock });

  function giveBack(request: RateLimitRequest): void {
    for (const { rate, keyOf, tats } of rules) {
      const key = keyOf(request);
      const tat = key === null ? undefined : tats.get(key);
      if (key !== null && tat !== undefined) tats.set(key, gcraGiveBack(rate, tat));
    }
  }

  function ticketOf(request: RateLimitRequest): RateTicket {
    let isSettled = false;
    return {
      states: [],
      provider: null,
      settle({ wasSent }) {
        if (!isSettled && !wasSent) giveBack(request);
        isSettled = true;
      },
    };
  }

  return {
    configure(next) {
      const known = new Map(rules.map((rule) => [rule.name, rule]));
      const now = clock.monotonic();
      rules = next.map((rule) => toBucketed(rule, known.get(rule.name), now));
    },
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
      return ticketOf(request);
    },
    takeFreeDisconnect: ({ user, max }) => freeDisconnects.take(user, max),
  };
}

/** @param before the same rule with its former rate */
function toBucketed({ name, requestsPerSecond, keyOf = () => "" }: LimitRule, before?: Bucketed, nowMs = 0): Bucketed {
  const rate = gcraRate(requestsPerSecond, Math.max(1, 2 * requestsPerSecond));
  const tats = before?.tats ?? new Map<string, number>();
  if (before !== undefined && before.rate.fullMs !== rate.fullMs) {
    const factor = rate.fullMs / before.rate.fullMs;
    for (const [key, tat] of tats) tats.set(key, nowMs + owedMs(before.rate, tat, nowMs) * factor);
  }
  return { name, rate, keyOf, tats };
}

function longestWait(rules: readonly Bucketed[], request: RateLimitRequest, now: number): RateLimitRefusal | null {
  let worst: RateLimitRefusal | null = null;
  for (const { name, rate, keyOf, tats } of rules) {
    const key = keyOf(request);
    if (key === null) continue;
    const retryAfterMs = gcraWaitMs(rate, tats.get(key) ?? -Infinity, now);
    if (retryAfterMs > (worst?.retryAfterMs ?? 0)) worst = { rule: name, retryAfterMs, tooLarge: null, states: [] };
  }
  return worst;
}

function remember(tats: Map<string, number>, key: string, tat: number, maxKeys: number): void {
  // Deleting and setting moves the key to the end of the map. A rule without keys has a single one, which stays.
  if (tats.size > 1) tats.delete(key);
  tats.set(key, tat);
  if (tats.size <= maxKeys) return;
  const [oldest] = tats.keys();
  if (oldest !== undefined) tats.delete(oldest);
}

/** A rate with a burst, precomputed by `gcraRate`. */
export interface GcraRate {
  /** ms in which one token is added. */
  readonly intervalMs: number;
  /** ms in which an empty bucket fills up. */
  readonly fullMs: number;
}

/**
 * The generic cell rate algorithm: a token bucket whose whole state is one number, the theoretical arrival time (TAT),
 * which is when the bucket will be full again, in ms of a monotonic clock. No timer refills it and no lock guards it.
 * A bucket nobody has used yet has the TAT -Infinity.
 *
 * `perSecond` tokens are added each second, up to `burst`; both > 0, `burst` >= 1.
 */
export function gcraRate(perSecond: number, burst: number): GcraRate {
  const intervalMs = 1000 / perSecond;
  return { intervalMs, fullMs: burst * intervalMs };
}

/** ms until a token is available; 0 if one may be taken now. Changes nothing. */
export function gcraWaitMs(rate: GcraRate, tat: number, nowMs: number): number {
  const waitMs = owedMs(rate, tat, nowMs) + rate.intervalMs - rate.fullMs;
  // Sums of intervals are not exact in floating point: a rounding error must not cost the last token of a burst.
  return waitMs <= rate.intervalMs * 1e-3 ? 0 : waitMs;
}

/** The TAT after a token is taken. Call gcraWaitMs first. */
export function gcraTake(rate: GcraRate, tat: number, nowMs: number): number {
  return nowMs + owedMs(rate, tat, nowMs) + rate.intervalMs;
}

/** The TAT after a token is given back. Never fills a bucket beyond its burst. */
function gcraGiveBack(rate: GcraRate, tat: number): number {
  return tat - rate.intervalMs;
}

/** ms until the bucket is full. Never more than for an empty bucket, so a clock that jumps back locks nobody out. */
function owedMs(rate: GcraRate, tat: number, nowMs: number): number {
  return Math.min(Math.max(tat - nowMs, 0), rate.fullMs);
}
