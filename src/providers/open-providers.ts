import type { BreakerConfig, ProviderConfig, TimeoutsConfig } from "../config/schema.ts";
import { createProvider } from "./create-provider.ts";
import type { Provider, UpstreamTimeouts } from "./provider.ts";

/** A provider of the config that has a key. */
export interface KeyedProvider {
  readonly config: ProviderConfig;
  /** At least one; "" if it needs none. */
  readonly apiKeys: readonly string[];
}

/** Used if no provider has a key. */
const simulated: ProviderConfig = {
  name: "simulator",
  kind: "simulator",
  models: ["deepseek-*", "sim-*"],
  model_map: {},
  priority: 0,
  weight: 1,
  stream_options: true,
  enabled: true,
  timeouts: {},
};

/** The providers of the config whose key was found; only the embedded simulator if there are none. */
export function chooseProviders(
  providers: readonly ProviderConfig[],
  findKeys: (provider: ProviderConfig) => readonly string[],
): { readonly usable: readonly KeyedProvider[]; readonly keyless: readonly string[]; readonly simulated: boolean } {
  const keyed = providers.filter(({ enabled }) => enabled).map((config) => ({ config, apiKeys: findKeys(config) }));
  const usable = keyed.filter(({ apiKeys }) => apiKeys.length > 0);
  const keyless = keyed.filter(({ apiKeys }) => apiKeys.length === 0).map(({ config }) => config.name);
  if (usable.length > 0) return { usable, keyless, simulated: false };
  return { usable: [{ config: simulated, apiKeys: ["simulator"] }], keyless, simulated: true };
}

/**
 * Creates the connection pools, one for each key; nothing is sent yet.
 * @param simulatorUrl where the embedded simulator listens; null if it isn't running
 * @param rereadKey called when a provider has rejected its key, before that counts against it
 */
export function openProviders(
  keyed: readonly KeyedProvider[],
  shared: { readonly timeouts: TimeoutsConfig; readonly breaker: BreakerConfig },
  simulatorUrl: string | null,
  rereadKey: (provider: string) => void,
): Provider[] {
  const { failures, window_seconds, open_seconds } = shared.breaker;
  return keyed.flatMap(({ config, apiKeys }) =>
    apiKeys.map((apiKey, keyIndex) =>
      createProvider({
        name: config.name,
        keyIndex,
        kind: config.kind,
        baseUrl: config.base_url ?? (config.kind === "simulator" ? (simulatorUrl ?? undefined) : undefined),
        apiKey,
        models: config.models,
        modelMap: config.model_map,
        streamOptions: config.stream_options,
        priority: config.priority,
        // The weight is that of the provider, however many keys it has.
        weight: config.weight / apiKeys.length,
        timeouts: upstreamTimeouts(shared.timeouts, config.timeouts),
        breaker: { failures, windowMs: window_seconds * 1000, openMs: open_seconds * 1000, users: 2 },
        rereadKey: () => {
          rereadKey(config.name);
        },
      }),
    ),
  );
}

/** The config's timeouts in ms; a provider's own override the shared ones. */
export function upstreamTimeouts(shared: TimeoutsConfig, own: ProviderConfig["timeouts"] = {}): UpstreamTimeouts {
  const ms = (key: keyof TimeoutsConfig): number => (own[key] ?? shared[key]) * 1000;
  return {
    connect: ms("connect_seconds"),
    firstByte: ms("first_byte_seconds"),
    firstEvent: ms("first_event_seconds"),
    idle: ms("idle_seconds"),
    total: ms("total_seconds"),
    stalledReader: ms("stalled_reader_seconds"),
    heartbeat: ms("heartbeat_seconds"),
  };
}
