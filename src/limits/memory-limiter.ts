import type { Config } from "../config/schema.ts";
import type { Clock } from "../lib/clock.ts";
import { gcraGiveBack, type GcraRate, gcraRate, gcraTake, gcraWaitMs } from "../lib/gcra.ts";
import type { LimitAsk, Limiter, LimitRefusal } from "./limiter.ts";

/** A token bucket for each key. */
export interface LimitRule {
  /** Name in refusals and metrics. */
  readonly name: string;
  /** Tokens that come back each second. Twice as many may come in a burst (at least one). */
  readonly requestsPerSecond: number;
  /** Whose bucket a request takes from, null: from none. Absent: one bucket for all. */
  readonly keyOf?: (ask: LimitAsk) => string | null;
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
  readonly keyOf: (ask: LimitAsk) => string | null;
  /** Key to theoretical arrival time, the least recently used first. */
  readonly tats: Map<string, number>;
}

/**
 * A limiter in this process's memory: no timers, no locks, since one synchronous call is one decision.
 * Each rule remembers `maxKeys` keys; the one unused for the longest is forgotten, which gives it a full bucket.
 */
export function createMemoryLimiter(options: {
  readonly rules: readonly LimitRule[];
  readonly clock: Clock;
  readonly maxKeys?: number;
}): Limiter {
  const { clock, maxKeys = 10_000 } = options;
  const rules = options.rules.map(toBucketed);

  return {
    take(ask) {
      const now = clock.monotonic();
      const refusal = longestWait(rules, ask, now);
      if (refusal !== null) return refusal;
      for (const { rate, keyOf, tats } of rules) {
        const key = keyOf(ask);
        if (key === null) continue;
        const tat = gcraTake(rate, tats.get(key) ?? -Infinity, now);
        remember(tats, key, tat, maxKeys);
      }
      return null;
    },
    giveBack(ask) {
      for (const { rate, keyOf, tats } of rules) {
        const key = keyOf(ask);
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

function longestWait(rules: readonly Bucketed[], ask: LimitAsk, now: number): LimitRefusal | null {
  let worst: LimitRefusal | null = null;
  for (const { name, rate, keyOf, tats } of rules) {
    const key = keyOf(ask);
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
