import { AppError } from "../errors.ts";
import type { Clock } from "../lib/clock.ts";
import type { BreakerState } from "./breaker.ts";
import { type Latencies, latenciesOf, type ModelCircuit, type ProviderHealth } from "./provider-health.ts";
import type { ProbeResult, ProviderProbes } from "./provider-probes.ts";
import type { Provider } from "./provider.ts";
import { type ProviderTest, testProvider } from "./provider-test.ts";

/** One account of a provider. The key itself is never shown, only its index among the provider's keys. */
interface KeyView {
  readonly key: number;
  /** The circuit of the account: failed connections, and a rejected key. */
  readonly breaker: BreakerState;
  /** ms until the rate limit of the whole account ends; 0 if there is none. */
  readonly limitedForMs: number;
  /** The models whose circuit is not closed, or that are rate limited. */
  readonly circuits: readonly ModelCircuit[];
  readonly inFlight: number;
  readonly probe: ProbeResult | null;
}

/** State and statistics of a provider, over all of its keys. */
export interface ProviderView {
  readonly name: string;
  readonly kind: string;
  /** "up" if at least one key can be sent requests now. */
  readonly state: "up" | "down" | "drained";
  readonly inFlight: number;
  /** Most requests at once, as it is now; null: no cap. */
  readonly cap: number | null;
  /** Since the start: attempts, of these the failed ones, and the retries. */
  readonly asked: number;
  readonly failed: number;
  readonly retries: number;
  /** Share of failures among the last requests, 0 to 1; null if there are none. */
  readonly errorRate: number | null;
  /** Of the last responses, in ms; null if there are none. */
  readonly firstEventMs: Latencies | null;
  readonly keys: readonly KeyView[];
}

export interface ProviderAdmin {
  /** All providers in use, in the order of the config. */
  list(): readonly ProviderView[];
  /** Takes a provider out of rotation; running requests continue. False if there is none of that name. */
  drain(name: string): boolean;
  /** Puts it back, with circuits and rate limits reset. False if there is none of that name. */
  restore(name: string): boolean;
  /**
   * Sends one small chat with a key of the provider; undefined if there is none of that name and index. See testProvider.
   *
   * @param key index; default: the first
   * @throws AppError `conflict` also while another test of that key runs
   */
  test(name: string, key?: number, model?: string): Promise<ProviderTest> | undefined;
}

/** Lets the operator list, drain and restore providers. */
export function createProviderAdmin(options: {
  /** The providers in use now. */
  readonly providers: () => readonly Provider[];
  readonly probes: ProviderProbes;
  /** The cap of a provider now; Infinity if it has none. */
  readonly capOf: (provider: string) => number;
  readonly clock: Clock;
}): ProviderAdmin {
  const { providers, probes, capOf, clock } = options;
  /** Those that are being tested, by their health: it lives on while the config is reloaded. */
  const testing = new Set<ProviderHealth>();

  function byName(): ReadonlyMap<string, readonly Provider[]> {
    const found = new Map<string, Provider[]>();
    for (const provider of providers()) found.set(provider.name, [...(found.get(provider.name) ?? []), provider]);
    return found;
  }

  function change(name: string, act: (health: ProviderHealth) => void): boolean {
    const keys = byName().get(name);
    for (const { health } of keys ?? []) act(health);
    return keys !== undefined;
  }

  return {
    list: () =>
      Array.from(byName(), ([name, keys]) => ({
        ...viewOf(name, keys, probes, clock.monotonic()),
        cap: Number.isFinite(capOf(name)) ? capOf(name) : null,
      })),
    drain: (name) =>
      change(name, (health) => {
        health.drained = true;
      }),
    restore: (name) =>
      change(name, (health) => {
        health.restore();
      }),
    test(name, key = 0, model) {
      const provider = byName()
        .get(name)
        ?.find(({ keyIndex }) => keyIndex === key);
      if (provider === undefined) return undefined;
      const { health } = provider;
      if (testing.has(health)) throw new AppError("conflict", { message: `${name} is being tested already.` });
      testing.add(health);
      return testProvider(provider, model, clock).finally(() => testing.delete(health));
    },
  };
}

function viewOf(
  name: string,
  keys: readonly Provider[],
  probes: ProviderProbes,
  now: number,
): Omit<ProviderView, "cap"> {
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
    kind: keys[0]?.kind.name ?? "",
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
