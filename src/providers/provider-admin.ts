import type { Clock } from "../lib/clock.ts";
import type { BreakerState } from "./breaker.ts";
import { type Latencies, latenciesOf, type ModelCircuit, type ProviderHealth } from "./provider-health.ts";
import type { ProbeResult, ProviderProbes } from "./provider-probes.ts";
import type { Provider } from "./provider.ts";

/** One account of a provider. The key itself is never shown, only its place among the provider's keys. */
interface KeyView {
  readonly key: number;
  /** The circuit of the account: connections that fail, and a key that is refused. */
  readonly breaker: BreakerState;
  /** ms for which the provider takes no requests for any model; 0 where it does. */
  readonly limitedForMs: number;
  /** The models that are not asked as usual. */
  readonly circuits: readonly ModelCircuit[];
  readonly inFlight: number;
  readonly probe: ProbeResult | null;
}

/** How a provider is doing, over all of its keys. */
export interface ProviderView {
  readonly name: string;
  readonly kind: string;
  /** "up" where at least one key can be asked now. */
  readonly state: "up" | "down" | "drained";
  readonly inFlight: number;
  /** Since the start: requests, of these the failed ones, and of these the second or later ones of a request. */
  readonly asked: number;
  readonly failed: number;
  readonly retries: number;
  /** Share of failures among the last answers, 0 to 1; null where there are none. */
  readonly errorRate: number | null;
  /** Of the last answers, in ms; null where there are none. */
  readonly firstEventMs: Latencies | null;
  readonly keys: readonly KeyView[];
}

export interface ProviderAdmin {
  /** All providers in use, in the order of the config. */
  list(): readonly ProviderView[];
  /** Takes a provider out of service: what runs goes on, nothing new comes. False where there is none of that name. */
  drain(name: string): boolean;
  /** Puts it back, with its breaker closed and its limits forgotten. False where there is none of that name. */
  restore(name: string): boolean;
}

/** The operator's view of the providers, and the hand on them. */
export function createProviderAdmin(options: {
  readonly providers: readonly Provider[];
  readonly probes: ProviderProbes;
  readonly clock: Clock;
}): ProviderAdmin {
  const { providers, probes, clock } = options;
  const byName = new Map<string, Provider[]>();
  for (const provider of providers) byName.set(provider.name, [...(byName.get(provider.name) ?? []), provider]);

  function change(name: string, act: (health: ProviderHealth) => void): boolean {
    const keys = byName.get(name);
    for (const { health } of keys ?? []) act(health);
    return keys !== undefined;
  }

  return {
    list: () => Array.from(byName, ([name, keys]) => viewOf(name, keys, probes, clock.monotonic())),
    drain: (name) =>
      change(name, (health) => {
        health.drained = true;
      }),
    restore: (name) =>
      change(name, (health) => {
        health.restore();
      }),
  };
}

function viewOf(name: string, keys: readonly Provider[], probes: ProviderProbes, now: number): ProviderView {
  const stats = keys.map(({ health }) => health.stats);
  const sum = (read: (one: (typeof stats)[number]) => number): number => stats.reduce((all, one) => all + read(one), 0);
  const responses = sum((one) => one.outcomes().total);
  const views = keys.map((provider): KeyView => {
    const { health } = provider;
    return {
      key: provider.keyIndex,
      breaker: health.accountState(now),
      limitedForMs: Math.ceil(health.accountLimitedMs(now)),
      circuits: health.circuits(now),
      inFlight: health.stats.inFlight,
      probe: probes.lastOf(provider),
    };
  });
  const isUp = views.some(({ breaker, limitedForMs }) => breaker !== "open" && limitedForMs === 0);
  return {
    name,
    kind: keys[0]?.kind.kind ?? "",
    state: keys.some(({ health }) => health.drained) ? "drained" : isUp ? "up" : "down",
    inFlight: sum((one) => one.inFlight),
    asked: sum((one) => one.asked),
    failed: sum((one) => one.failed),
    retries: sum((one) => one.retries),
    errorRate: responses === 0 ? null : sum((one) => one.outcomes().failed) / responses,
    firstEventMs: latenciesOf(Float64Array.from(stats.flatMap((one) => [...one.firstEventTimes()]))),
    keys: views,
  };
}
