import { createAdmission } from "./gateway/admission.ts";
import { createCountTokens, type CountTokens } from "./gateway/count-tokens.ts";
import type { GatewayPolicy } from "./gateway/policy.ts";
import { createPricingPolicy } from "./gateway/request-cost.ts";
import { ConfigError, type Env } from "./config/load.ts";
import type { Config } from "./config/schema.ts";
import { createCors, type Cors } from "./http/plugins/cors.ts";
import type { Clock } from "./lib/clock.ts";
import { type AddressRules, createAddressRules, createIpList, type IpList } from "./lib/ip-list.ts";
import { createPermitRules } from "./limits/permit-rules.ts";
import { createAllowances } from "./quota/allowances.ts";
import { createTiers, type Tiers } from "./quota/tiers.ts";
import { upstreamTimeouts } from "./providers/open-providers.ts";
import type { ProviderSet } from "./providers/provider-services.ts";

/**
 * Everything that a reload may change, made from one config and never changed: a reload makes another. What has state
 * of its own (connections, circuits, buckets, counts) is not in here; it survives a reload and gets the new figures.
 */
export interface Policy extends GatewayPolicy {
  /** The config in force. */
  readonly config: Config;
  readonly tiers: Tiers;
  /** The providers in use, and the router between them. */
  readonly upstream: ProviderSet;
  /** Whether the embedded simulator responds, because no provider has a key. */
  readonly simulated: boolean;
  /** Names of providers that are not used because they have no key. */
  readonly keyless: readonly string[];
  readonly countTokens: CountTokens;
  readonly cors: Cors;
  /** Reverse proxies whose X-Forwarded-For is trusted. */
  readonly trustedProxies: IpList;
  /** Which addresses may use the proxy. */
  readonly addressRules: AddressRules;
  /** Addresses that may use /admin. */
  readonly adminAddresses: IpList;
  /** Addresses that may read /metrics and the details of /healthz. */
  readonly metricsAddresses: IpList;
  /** A bearer token that allows the same; undefined: none. */
  readonly metricsToken: string | undefined;
}

/**
 * Creates the policy of a config. Throws RangeError for values that the config's schema refuses, ConfigError for a token in
 * the environment that no request can hold.
 */
export function createPolicy(options: {
  readonly config: Config;
  readonly upstream: ProviderSet;
  readonly simulated: boolean;
  readonly keyless: readonly string[];
  /** The cap of a provider now; Infinity if it has none. */
  readonly capOf: (provider: string) => number;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
}): Policy {
  const { config, upstream, simulated, keyless, capOf, env, clock } = options;
  const { quota, chat, abort, retry, server } = config;
  const { timezone, currency } = quota;
  const tiers = createTiers(quota);
  const pricingPolicy = createPricingPolicy(config);
  const { router } = upstream;
  return {
    config,
    tiers,
    upstream,
    simulated,
    keyless,
    countTokens: createCountTokens(router, quota.estimate_bytes_per_token),
    admission: createAdmission({ router, pricing: pricingPolicy.pricing, tiers: quota.tiers }),
    pricingPolicy,
    limitsOf: createAllowances({ tiers, currency, timezone, clock }).limitsOf,
    retry: {
      attempts: retry.attempts,
      baseMs: retry.base_ms,
      maxMs: retry.max_ms,
      maxRetryAfterMs: retry.max_retry_after_seconds * 1000,
    },
    permitRules: createPermitRules(config, capOf),
    readerTimes: upstreamTimeouts(config.timeouts),
    streamDefault: chat.stream_default,
    jsonHeartbeat: chat.json_heartbeat,
    collectLimitBytes: chat.collect_limit_bytes,
    warnPercent: quota.warn_percent,
    currency,
    abortPolicy: abort.policy,
    drainBounds: { ms: abort.drain_seconds * 1000, tokens: abort.drain_tokens },
    freeDisconnects: abort.free_disconnects_per_hour,
    cors: createCors(server.cors_origins),
    trustedProxies: createIpList(server.trust_proxy),
    addressRules: createAddressRules(config.access.allow, config.access.deny),
    adminAddresses: createIpList(config.admin.allow),
    metricsAddresses: createIpList(config.metrics.allow),
    metricsToken: readMetricsToken(env, config.metrics.token_env),
  };
}

/** The bearer token for /metrics. A file that it comes from commonly ends in a line break. */
function readMetricsToken(env: Env, variable: string): string | undefined {
  const token = env[variable]?.trim() ?? "";
  if (token === "") return undefined;
  if (/^[\x20-\x7e]+$/.test(token)) return token;
  throw new ConfigError(`environment ${variable}: expected a token of printable ASCII characters`);
}
