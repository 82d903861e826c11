import type { ProviderConfig, TimeoutsConfig } from "../config/schema.ts";
import { createProvider } from "./create-provider.ts";
import type { Provider, UpstreamTimeouts } from "./provider.ts";

/** A provider of the config that can be used, for its key is there. */
export interface KeyedProvider {
  readonly config: ProviderConfig;
  /** "" where it needs none. */
  readonly apiKey: string;
}

/** What serves where no provider has a key. */
const simulated: Omit<ProviderConfig, "timeouts"> & { readonly timeouts: ProviderConfig["timeouts"] } = {
  name: "simulator",
  kind: "simulator",
  models: ["deepseek-*", "sim-*"],
  priority: 0,
  weight: 1,
  enabled: true,
  timeouts: {},
};

/** The providers of the config whose key was found; the embedded simulator alone where there is none. */
export function chooseProviders(
  providers: readonly ProviderConfig[],
  findKey: (provider: ProviderConfig) => string | null,
): { readonly usable: readonly KeyedProvider[]; readonly keyless: readonly string[]; readonly simulated: boolean } {
  const keyed = providers.filter(({ enabled }) => enabled).map((config) => ({ config, apiKey: findKey(config) }));
  const usable = keyed.flatMap(({ config, apiKey }) => (apiKey === null ? [] : [{ config, apiKey }]));
  const keyless = keyed.filter(({ apiKey }) => apiKey === null).map(({ config }) => config.name);
  if (usable.length > 0) return { usable, keyless, simulated: false };
  return { usable: [{ config: simulated, apiKey: "simulator" }], keyless, simulated: true };
}

/**
 * Opens the connections' pools; nothing is sent yet.
 * @param simulatorUrl where the embedded simulator listens; null where none runs
 */
export function openProviders(
  keyed: readonly KeyedProvider[],
  timeouts: TimeoutsConfig,
  simulatorUrl: string | null,
): Provider[] {
  return keyed.map(({ config, apiKey }) =>
    createProvider({
      name: config.name,
      // The simulator is shaped like DeepSeek.
      kind: config.kind === "simulator" ? "deepseek" : config.kind,
      baseUrl: config.base_url ?? (config.kind === "simulator" ? (simulatorUrl ?? undefined) : undefined),
      apiKey,
      models: config.models,
      priority: config.priority,
      weight: config.weight,
      timeouts: upstreamTimeouts(timeouts, config.timeouts),
    }),
  );
}

function upstreamTimeouts(shared: TimeoutsConfig, own: ProviderConfig["timeouts"]): UpstreamTimeouts {
  const ms = (key: keyof TimeoutsConfig): number => (own[key] ?? shared[key]) * 1000;
  return {
    connect: ms("connect_seconds"),
    firstByte: ms("first_byte_seconds"),
    firstEvent: ms("first_event_seconds"),
    idle: ms("idle_seconds"),
    total: ms("total_seconds"),
  };
}
