import type { Config } from "../config/schema.ts";
import type { Emit } from "../events/types.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { createAlerts } from "./alerts.ts";
import { createFailover, type Failover } from "./failover.ts";
import { createKnownModels, type KnownModels } from "./known-models.ts";
import { createModelList, type ModelList } from "./model-list.ts";
import { openProviders, type KeyedProvider } from "./open-providers.ts";
import { createProviderAdmin, type ProviderAdmin } from "./provider-admin.ts";
import { createProviderProbes } from "./provider-probes.ts";
import { createRouter, type Router } from "./router.ts";

export interface ProviderServicesOptions {
  readonly keyed: readonly KeyedProvider[];
  readonly config: Pick<Config, "timeouts" | "breaker" | "retry" | "health" | "models">;
  /** Where the embedded simulator listens; null if it isn't running. */
  readonly simulatorUrl: string | null;
  /**
   * Called when a provider has rejected its key. If there is a new one by now, it calls `useKeys` before it returns.
   */
  readonly rereadKey: (provider: string) => void;
  readonly clock: Clock;
  /** A number in [0, 1). */
  readonly random: () => number;
  readonly emit: Emit;
  readonly log: Log;
}

/** The services around the providers. */
export interface ProviderServices {
  readonly router: Router;
  readonly failover: Failover;
  readonly models: ModelList;
  readonly knownModels: KnownModels;
  readonly admin: ProviderAdmin;
  /** Replaces a provider's keys, in order, from the next request on; their number can't change. */
  useKeys(provider: string, keys: readonly string[]): void;
  /** Ends the probes and cuts all connections. */
  close(): Promise<void>;
}

/** Creates the services; nothing is sent yet. */
export function openProviderServices(options: ProviderServicesOptions): ProviderServices {
  const { config, clock, random, emit, log } = options;
  const { aliases } = config.models;
  const providers = openProviders(options.keyed, config, options.simulatorUrl, options.rereadKey);
  const alerts = createAlerts({ emit, clock });
  const everyMs = config.health.probe_seconds * 1000;
  const { attempts, base_ms: baseMs, max_ms: maxMs, max_retry_after_seconds } = config.retry;
  const retry = { attempts, baseMs, maxMs, maxRetryAfterMs: max_retry_after_seconds * 1000 };
  const models = createModelList({ providers: providers.filter(({ keyIndex }) => keyIndex === 0), aliases, clock });
  const probes = createProviderProbes({
    ...{ providers, everyMs, clock, random, alerts },
    onProbed(provider) {
      if (provider.keyIndex === 0) models.refresh(provider);
    },
  });
  const knownModels = createKnownModels(configuredModels(options), () => models.served());
  return {
    router: createRouter({ providers, aliases, knownModels, random }),
    failover: createFailover({ retry, clock, random, alerts, log }),
    models,
    knownModels,
    admin: createProviderAdmin({ providers, probes, clock }),
    useKeys(name, keys) {
      for (const provider of providers) {
        const key = keys[provider.keyIndex];
        if (provider.name === name && key !== undefined) provider.useKey(key);
      }
    },
    async close() {
      probes.close();
      await Promise.all(providers.map(({ dispatcher }) => dispatcher.destroy()));
    },
  };
}

/** Every model name in the config, including globs. */
export function configuredModels({ keyed, config }: Pick<ProviderServicesOptions, "keyed" | "config">): string[] {
  const { aliases, prices, weights } = config.models;
  return [
    ...keyed.flatMap(({ config: { models, model_map: map } }) => [...models, ...Object.entries(map).flat()]),
    ...Object.entries(aliases).flat(),
    ...prices.flatMap(({ models }) => models),
    ...Object.keys(weights),
  ];
}
