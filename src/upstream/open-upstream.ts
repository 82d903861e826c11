import type { Config } from "../config/schema.ts";
import type { Emit } from "../events/types.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { createAlerts } from "./providers/alerts.ts";
import { createDispatch, type Dispatch } from "./dispatch.ts";
import { createModelList, type ModelList } from "./providers/model-list.ts";
import { openProviders, type KeyedProvider } from "./providers/open-providers.ts";
import { createProviderAdmin, type ProviderAdmin } from "./providers/provider-admin.ts";
import { createProviderProbes } from "./providers/provider-probes.ts";
import { createRouter, type Router } from "./router.ts";

export interface UpstreamOptions {
  readonly keyed: readonly KeyedProvider[];
  readonly config: Pick<Config, "timeouts" | "breaker" | "retry" | "health" | "models">;
  /** Where the embedded simulator listens; null where none runs. */
  readonly simulatorUrl: string | null;
  readonly clock: Clock;
  /** A number in [0, 1). */
  readonly random: () => number;
  readonly emit: Emit;
  readonly log: Log;
}

/** All that is known of the providers. */
export interface Upstream {
  readonly router: Router;
  readonly dispatch: Dispatch;
  readonly models: ModelList;
  readonly admin: ProviderAdmin;
  /** Ends the probes and cuts all connections. */
  close(): Promise<void>;
}

/** Builds the providers' side; nothing is sent yet. */
export function openUpstream(options: UpstreamOptions): Upstream {
  const { config, clock, random, emit, log } = options;
  const { aliases } = config.models;
  const providers = openProviders(options.keyed, config, options.simulatorUrl);
  const alerts = createAlerts({ emit, clock });
  const everyMs = config.health.probe_seconds * 1000;
  const probes = createProviderProbes({ providers, everyMs, clock, random, alerts });
  const { attempts, base_ms: baseMs, max_ms: maxMs, max_retry_after_seconds } = config.retry;
  const retry = { attempts, baseMs, maxMs, maxRetryAfterMs: max_retry_after_seconds * 1000 };
  return {
    router: createRouter({ providers, aliases, random }),
    dispatch: createDispatch({ retry, clock, random, alerts, log }),
    models: createModelList({ providers: providers.filter(({ keyIndex }) => keyIndex === 0), aliases, clock }),
    admin: createProviderAdmin({ providers, probes, clock }),
    async close() {
      probes.close();
      await Promise.all(providers.map(({ dispatcher }) => dispatcher.destroy()));
    },
  };
}
