import type { Config } from "../config/schema.ts";

/** How one request fared before its first data event. */
interface FirstEvent {
  /** ms from the request to its first data event; null: the provider limited it (429), was overloaded or too late. */
  readonly firstEventMs: number | null;
  /** Requests at the provider under way, this one included. */
  readonly inFlight: number;
}

/** How many requests each provider may have at once. */
export interface ProviderCaps {
  /** The cap now; Infinity if there is none. */
  readonly capOf: (provider: string) => number;
  /** Adapts the cap of a provider, if that is switched on. */
  adapt(provider: string, result: FirstEvent): void;
}

export type CapRule = Pick<Config["concurrency"], "per_provider" | "adaptive">;

/** Where a cap that adapts begins, and how far it may rise, if the provider has none in the config. */
const firstCap = 64;
const highestCap = 10_000;
const minuteMs = 60_000;
/** Minutes whose medians are remembered. */
const minutes = 10;
/** A minute with fewer first events says nothing. */
const fewest = 5;
/** First events of a minute that are kept for its median. */
const keptPerMinute = 101;

/**
 * Caps of the config, or, with `adaptive`, caps that come down by a factor when the provider limits or slows requests,
 * and rise by one for every cap-ful of good ones while at least half of the cap is in use: additive increase,
 * multiplicative decrease (Chiu and Jain, 1989), as AIMDLimit of Netflix's concurrency-limits does it. A cap comes down
 * at most once in a cap-ful of results, since those that follow were sent under the old one. A provider that nobody
 * asks keeps its cap.
 *
 * @param rule in force
 * @param now monotonic ms
 */
export function createProviderCaps(rule: () => CapRule, now: () => number): ProviderCaps {
  // As many as there are providers in the config.
  const adapted = new Map<string, Adapted>();

  function highest(provider: string): number {
    return rule().per_provider[provider] ?? highestCap;
  }

  function stateOf(provider: string): Adapted {
    let state = adapted.get(provider);
    if (state === undefined) {
      const cap = rule().per_provider[provider] ?? firstCap;
      state = { cap, sinceDecrease: cap, medians: [], current: [], currentFrom: now() };
      adapted.set(provider, state);
    }
    return state;
  }

  return {
    capOf(provider) {
      const { adaptive, per_provider } = rule();
      if (!adaptive.enabled) return per_provider[provider] ?? Infinity;
      return Math.max(1, Math.floor(Math.min(stateOf(provider).cap, highest(provider))));
    },
    adapt(provider, { firstEventMs, inFlight }) {
      const { enabled, min, latency_factor: factor, decrease } = rule().adaptive;
      if (!enabled) return;
      const state = stateOf(provider);
      const best = baselineOf(state, now());
      if (firstEventMs !== null && state.current.length < keptPerMinute) state.current.push(firstEventMs);
      state.sinceDecrease += 1;
      if (firstEventMs === null || (best !== null && firstEventMs > factor * best)) {
        if (state.sinceDecrease < state.cap) return;
        state.sinceDecrease = 0;
        state.cap = Math.max(min, Math.floor(state.cap * decrease));
      } else if (inFlight >= state.cap / 2) {
        state.cap = Math.min(highest(provider), state.cap + 1 / state.cap);
      }
    },
  };
}

interface Adapted {
  cap: number;
  /** Results since the cap came down. */
  sinceDecrease: number;
  /** Of the last minutes with enough first events, the oldest first. */
  readonly medians: { readonly at: number; readonly ms: number }[];
  /** First events of the minute that began at `currentFrom`. */
  current: number[];
  currentFrom: number;
}

/** The best median of the last minutes; null if none is known. Ends the current minute if it is over. */
function baselineOf(state: Adapted, at: number): number | null {
  if (at - state.currentFrom >= minuteMs) {
    const sorted = state.current.sort((a, b) => a - b);
    const median = sorted[sorted.length >> 1];
    if (sorted.length >= fewest && median !== undefined) state.medians.push({ at, ms: median });
    state.current = [];
    state.currentFrom = at;
  }
  while (state.medians[0] !== undefined && at - state.medians[0].at > minutes * minuteMs) state.medians.shift();
  return state.medians.length === 0 ? null : Math.min(...state.medians.map(({ ms }) => ms));
}
