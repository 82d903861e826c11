import type { BreakerConfig, ProviderConfig, TimeoutsConfig } from "../config/schema.ts";
import { createProvider } from "./create-provider.ts";
import { createProviderAccount, type ProviderAccount } from "./provider-account.ts";
import { providerKinds } from "./kinds/kinds.ts";
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

/** An account in use, and where it belongs. */
interface NamedAccount {
  /** The provider's name. */
  readonly name: string;
  readonly origin: string;
  /** The URL of the proxy through which it is reached. */
  readonly forwardProxy: string | undefined;
  readonly account: ProviderAccount;
}

/** Providers with the accounts that they share with those of the next config. */
export interface OpenedProviders {
  readonly providers: readonly Provider[];
  readonly accounts: readonly NamedAccount[];
  /** Tells the accounts that were known before their new keys and figures. */
  use(): void;
}

interface OpenOptions {
  /** Where the embedded simulator listens; null if it isn't running. */
  readonly simulatorUrl: string | null;
  /** Called when a provider has rejected its key, before that counts against it. */
  readonly rereadKey: (provider: string) => void;
  /** The accounts in use: those that are still configured are used again. */
  readonly known: readonly NamedAccount[];
}

/** Makes the providers, one for each key. Nothing is sent, and known accounts stay as they are until `use`. */
export function openProviders(
  keyed: readonly KeyedProvider[],
  shared: { readonly timeouts: TimeoutsConfig; readonly breaker: BreakerConfig },
  { simulatorUrl, rereadKey, known }: OpenOptions,
): OpenedProviders {
  const { failures, window_seconds, open_seconds } = shared.breaker;
  const breaker = { failures, windowMs: window_seconds * 1000, openMs: open_seconds * 1000, users: 2 };
  const providers: Provider[] = [];
  const accounts: NamedAccount[] = [];
  const updates: (() => void)[] = [];
  for (const { config, apiKeys } of keyed) {
    const { name } = config;
    const timeouts = upstreamTimeouts(shared.timeouts, config.timeouts);
    const figures = { connectMs: timeouts.connect, breaker };
    const ownUrl = config.kind === "simulator" ? (simulatorUrl ?? undefined) : undefined;
    const baseUrl = config.base_url ?? ownUrl ?? providerKinds[config.kind].defaultBaseUrl;
    const { origin } = new URL(baseUrl);
    const { forward_proxy_url: forwardProxy } = config;
    const own = known
      .filter((one) => one.name === name && one.origin === origin && one.forwardProxy === forwardProxy)
      .map(({ account }) => account);
    const matched = matchAccounts(apiKeys, own);
    apiKeys.forEach((apiKey, keyIndex) => {
      const account = matched[keyIndex] ?? createProviderAccount(origin, apiKey, figures, forwardProxy);
      accounts.push({ name, origin, forwardProxy, account });
      updates.push(() => {
        account.useKey(apiKey);
        account.configure(figures);
      });
      providers.push(
        createProvider({
          name,
          keyIndex,
          kind: config.kind,
          baseUrl,
          apiKey,
          account,
          timeouts,
          breaker,
          models: config.models,
          modelMap: config.model_map,
          streamOptions: config.stream_options,
          priority: config.priority,
          // The weight is that of the provider, however many keys it has.
          weight: config.weight / apiKeys.length,
          rereadKey: () => {
            rereadKey(name);
          },
        }),
      );
    });
  }
  return {
    providers,
    accounts,
    use() {
      for (const update of updates) update();
    },
  };
}

/**
 * The known account of each key: the one that has the key already, else one whose key is no longer configured, so that
 * a rotated key keeps its connections and statistics.
 */
function matchAccounts(
  apiKeys: readonly string[],
  known: readonly ProviderAccount[],
): readonly (ProviderAccount | undefined)[] {
  const rotated = known.filter(({ secret }) => !apiKeys.includes(secret));
  return apiKeys.map((key) => known.find(({ secret }) => secret === key) ?? rotated.shift());
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
