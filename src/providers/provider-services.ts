import type { Config } from "../config/schema.ts";
import type { Emit } from "../events/catalogue.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { createAlerts } from "./alerts.ts";
import { createFailover, type Failover } from "./failover.ts";
import { createKnownModels, createModelList, type KnownModels, type ModelList } from "./model-list.ts";
import { openProviders, type KeyedProvider, type OpenedProviders } from "./open-providers.ts";
import type { Provider } from "./provider.ts";
import type { ProviderAccount } from "./provider-account.ts";
import { createProviderAdmin, type ProviderAdmin } from "./provider-admin.ts";
import { createProviderCaps, type CapRule, type ProviderCaps } from "./provider-caps.ts";
import { createProviderPeers, type Peers } from "./provider-peers.ts";
import { createProviderProbes } from "./provider-probes.ts";
import { createRouter, type Router } from "./router.ts";

export interface ProviderServicesOptions {
  /**
   * Called when a provider has rejected its key. If there is a new one by now, it calls `useKeys` before it returns.
   */
  readonly rereadKey: (provider: string) => void;
  /** [concurrency] in force. */
  readonly concurrency: () => CapRule;
  readonly clock: Clock;
  /** A number in [0, 1). */
  readonly random: () => number;
  readonly emit: Emit;
  readonly log: Log;
}

/** What the providers of a config are made from. */
interface ProviderSetOptions {
  readonly keyed: readonly KeyedProvider[];
  readonly config: Pick<Config, "timeouts" | "breaker" | "health" | "models">;
  /** Where the embedded simulator listens; null if it isn't running. */
  readonly simulatorUrl: string | null;
}

/** The providers of one config, and the router between them. Never changes. */
export interface ProviderSet {
  readonly router: Router;
  readonly knownModels: KnownModels;
  /** Names of the providers, and of the models in the config without globs. */
  readonly names: { readonly providers: readonly string[]; readonly models: readonly string[] };
}

/** The services around the providers. They live on while the config is reloaded. */
export interface ProviderServices {
  readonly failover: Failover;
  readonly caps: ProviderCaps;
  readonly models: ModelList;
  readonly admin: ProviderAdmin;
  /** Shares with other processes what is known of providers, from now on. */
  join(peers: Peers): void;
  /** Makes the providers of a config; connections and health of those in use are shared. Changes nothing yet. */
  prepare(options: ProviderSetOptions): PreparedProviders;
  /** Replaces a provider's keys, in order, from the next request on; their number can't change. */
  useKeys(provider: string, keys: readonly string[]): void;
  /** Ends the probes and cuts all connections. */
  close(): Promise<void>;
}

/** Providers that are ready to be used. */
interface PreparedProviders extends ProviderSet {
  /**
   * Puts them into use. Accounts that are no longer configured are closed once their last request has ended.
   * @param whenEnded resolves when all requests have ended that run now
   */
  use(whenEnded: () => Promise<void>): void;
}

/** Creates the services, without providers; nothing is sent yet. */
export function createProviderServices(options: ProviderServicesOptions): ProviderServices {
  const { clock, random, emit, log } = options;
  let inUse: OpenedProviders = { providers: [], accounts: [], use: () => undefined };
  /** Accounts that requests of an earlier policy may still use. */
  const retired = new Set<ProviderAccount>();
  const peers = createProviderPeers({ clock, log, providers: () => inUse.providers, probes: () => probes });
  const alerts = createAlerts({ emit, clock, claim: (subject, ms) => peers.claimAlert(subject, ms) });
  const caps = createProviderCaps(options.concurrency, () => clock.monotonic());
  const models = createModelList({ providers: [], aliases: {}, clock });
  const probes = createProviderProbes({
    clock,
    random,
    alerts,
    mayProbe: () => peers.mayProbe(),
    onProbed(provider, result, isOwn) {
      if (isOwn) peers.tellProbe(provider, result);
      if (provider.keyIndex === 0) models.refresh(provider);
    },
  });

  async function retire(accounts: readonly ProviderAccount[], whenEnded: Promise<void>): Promise<void> {
    for (const account of accounts) retired.add(account);
    await whenEnded;
    for (const account of accounts) {
      if (retired.delete(account)) await account.dispatcher.close();
    }
  }

  return {
    failover: createFailover({ clock, random, alerts, caps, log }),
    caps,
    models,
    join: (joined) => {
      peers.join(joined);
    },
    admin: createProviderAdmin({ providers: () => inUse.providers, probes, capOf: caps.capOf, clock }),
    prepare({ keyed, config, simulatorUrl }) {
      const opened = openProviders(keyed, config, {
        simulatorUrl,
        rereadKey: options.rereadKey,
        known: inUse.accounts,
      });
      const { providers } = opened;
      const { aliases } = config.models;
      const names = configuredModels(keyed, config.models);
      const knownModels = createKnownModels({
        configured: names,
        listed: () => models.served(),
        mayServe: (name) => models.mayServe(name),
      });
      return {
        router: createRouter({ providers, aliases, knownModels, random }),
        knownModels,
        names: {
          providers: keyed.map(({ config: { name } }) => name),
          models: names.filter((name) => !name.includes("*")),
        },
        use(whenEnded) {
          const kept = new Set(opened.accounts.map(({ account }) => account));
          const removed = inUse.accounts.map(({ account }) => account).filter((account) => !kept.has(account));
          opened.use();
          keepDrained(inUse.providers, providers);
          inUse = opened;
          peers.watch(providers);
          models.configure({ providers: providers.filter(({ keyIndex }) => keyIndex === 0), aliases });
          probes.configure(providers, config.health.probe_seconds * 1000);
          if (removed.length === 0) return;
          retire(removed, whenEnded()).catch((err: unknown) => {
            log.error({ err }, "connections to a provider that is no longer configured could not be closed");
          });
        },
      };
    },
    useKeys(name, keys) {
      for (const provider of inUse.providers) {
        const key = keys[provider.keyIndex];
        if (provider.name === name && key !== undefined) provider.useKey(key);
      }
    },
    async close() {
      probes.close();
      const accounts = [...inUse.accounts.map(({ account }) => account), ...retired];
      retired.clear();
      await Promise.all(accounts.map(({ dispatcher }) => dispatcher.destroy()));
    },
  };
}

/** Operators drain a provider with all of its keys: one at another address, or with one key more, stays out of service. */
function keepDrained(before: readonly Provider[], next: readonly Provider[]): void {
  const drained = new Set(before.filter(({ health }) => health.drained).map(({ name }) => name));
  for (const { name, health } of next) if (drained.has(name)) health.drained = true;
}

/** Every model name in the config, including globs. */
function configuredModels(keyed: readonly KeyedProvider[], { aliases, prices, weights }: Config["models"]): string[] {
  return [
    ...keyed.flatMap(({ config: { models, model_map: map } }) => [...models, ...Object.entries(map).flat()]),
    ...Object.entries(aliases).flat(),
    ...prices.flatMap(({ models }) => models),
    ...Object.keys(weights),
  ];
}
