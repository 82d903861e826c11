import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { openIdentity, type IdentityServices } from "./identity/open-identity.ts";
import { openTokenKeys } from "./identity/sessions/token-keys.ts";
import { guardBackends, type Backends } from "./backends.ts";
import { type Audit, createAudit } from "./admin/audit.ts";
import { type Admin, createAdmin } from "./admin/open-admin.ts";
import { createUserAdmin, type UserAdmin } from "./admin/user-admin.ts";
import { createCountTokens, type CountTokens } from "./gateway/count-tokens.ts";
import { createGateway, type Gateway } from "./gateway/handle-request.ts";
import { createPricingPolicy, unpricedModels } from "./gateway/pricing-policy.ts";
import type { Env, LoadedConfig } from "./config/load.ts";
import { providerKinds } from "./providers/kinds/kinds.ts";
import { findProviderKeys, followKeyFiles } from "./config/provider-keys.ts";
import type { Config } from "./config/schema.ts";
import type { Logger } from "./events/logger.ts";
import { createMetrics, type Metrics } from "./events/metrics.ts";
import type { Emit } from "./events/types.ts";
import { openEvents, type Events } from "./events/open-events.ts";
import { createHealthChecks } from "./http/health-checks.ts";
import type { HealthCheck } from "./http/routes/ops.ts";
import { removeTemporaries } from "./lib/files/atomic-file.ts";
import { closeAll, type Closer } from "./lib/close-all.ts";
import { systemClock, type Clock } from "./lib/clock.ts";
import { openDiskProbe } from "./lib/files/disk-probe.ts";
import { acquireLock, type LockLoss } from "./lib/files/lock-file.ts";
import type { ProcessTable } from "./lib/files/lock-owner.ts";
import { createMemoryRateLimiter, limitRules } from "./limits/memory/memory-rate-limiter.ts";
import { createMemoryConcurrency } from "./limits/memory/memory-concurrency.ts";
import { openMemoryLedger } from "./quota/memory/memory-ledger.ts";
import { type Allowances, createAllowances } from "./quota/allowances.ts";
import { createTiers } from "./quota/tiers.ts";
import { createZone } from "./quota/zone.ts";
import { createSimulator } from "./simulator/server.ts";
import type { KnownModels } from "./providers/known-models.ts";
import type { ModelList } from "./providers/model-list.ts";
import { chooseProviders } from "./providers/open-providers.ts";
import { configuredModels, openProviderServices } from "./providers/provider-services.ts";
import type { ProviderAdmin } from "./providers/provider-admin.ts";

/** Everything that has state, built once and shared. */
export interface Services extends IdentityServices, Events, Backends {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Logger;
  readonly emit: Emit;
  readonly audit: Audit;
  readonly admin: Admin;
  readonly userAdmin: UserAdmin;
  readonly limitsOf: Allowances["limitsOf"];
  /** The local day, YYYY-MM-DD, in quota.timezone. */
  readonly today: () => string;
  readonly gateway: Gateway;
  readonly countTokens: CountTokens;
  readonly models: ModelList;
  readonly knownModels: KnownModels;
  readonly providerAdmin: ProviderAdmin;
  readonly metrics: Metrics;
  readonly metricsToken: string | undefined;
  readonly checks: readonly HealthCheck[];
  /** The absolute path of users/. */
  readonly usersDir: string;
  /** Whether the embedded simulator responds, because no provider has a key. */
  readonly simulated: boolean;
  /** Reads all files with secrets again at once. They are also watched while the proxy runs. */
  rereadKeys(): void;
  /** Closes everything in reverse order. Call it after the last request is settled. */
  close(): Promise<void>;
}

export interface ServicesOptions {
  readonly loaded: LoadedConfig;
  readonly env: Env;
  readonly log: Logger;
  readonly processes: ProcessTable;
  /** Called once if the users folder is no longer ours: this process must end without writing to it. */
  readonly onLockLost: (loss: LockLoss) => void;
  /** Aborts the start while it waits for the lock: createServices then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  readonly clock?: Clock;
  /** Wraps or replaces the backends. */
  readonly backends?: (own: Backends) => Backends;
  /** Adds the process's own metrics; at most once per process. */
  readonly processMetrics?: boolean;
}

/** Builds the services in order of dependency. If one can't be built, closes all others and throws. */
export async function createServices(options: ServicesOptions): Promise<Services> {
  const closers: Closer[] = [];
  try {
    return await build(options, closers);
  } catch (error) {
    await closeAll(closers);
    throw error;
  }
}

async function build(options: ServicesOptions, closers: Closer[]): Promise<Services> {
  const { loaded, env, log, clock = systemClock, processMetrics = false } = options;
  const { config, folder } = loaded;
  const newId = randomUUID;
  const usersDir = resolve(folder, config.storage.users_dir);
  const logsDir = resolve(folder, config.storage.logs_dir);
  await mkdir(usersDir, { recursive: true, mode: 0o700 });
  await mkdir(logsDir, { recursive: true, mode: 0o700 });
  const { processes, onLockLost: onLost, signal } = options;
  const lock = await acquireLock({
    ...{ path: join(usersDir, ".lock"), processes, clock, onLost },
    ...(signal === undefined ? {} : { signal }),
    onWait: (owner, ms) => {
      log.warn(
        { event: "locked", folder: usersDir, owner, wait_ms: ms },
        "the users folder is locked elsewhere: waiting for a sign of life",
      );
    },
  });
  closers.push(() => lock.release());
  // Under the lock, before anything else writes here: removes the half-written files of a killed process.
  await removeTemporaries(usersDir, ".toml");
  const disk = await openDiskProbe(usersDir, clock);

  const tokenKeys = await openTokenKeys({ env, usersDir, log });
  closers.push(() => {
    tokenKeys.close();
  });
  const tiers = createTiers(config.quota);
  const { timezone, currency } = config.quota;
  const { limitsOf } = createAllowances({ tiers, currency, timezone, clock });
  const zone = createZone(timezone);
  const dayOf = (at: number): string => new Date(zone.dateAt(at)).toISOString().slice(0, 10);
  const events = openEvents({ config, env, logsDir, dayOf, clock, log, newId, onOpen: (close) => closers.push(close) });
  const { bus, behaviourLog, webhook } = events;
  const audit = createAudit({ log: events.auditLog, emit: bus.emit, clock });
  const identity = await openIdentity({
    usersDir,
    auth: config.auth,
    security: config.security,
    tierNames: tiers.names,
    tokenKeys,
    clock,
    log,
    emit: bus.emit,
    newId,
    onOpen: (close) => closers.push(close),
  });
  const { apiKeys } = identity;
  const memoryLedger = await openMemoryLedger({
    usersDir,
    clock,
    log,
    quota: config.quota,
    storage: config.storage,
    usage: config.usage,
    hasKey: (user, id) => apiKeys.list(user).some((key) => key.id === id),
  });
  closers.push(() => memoryLedger.close());

  const own: Backends = {
    ledger: memoryLedger,
    rateLimiter: createMemoryRateLimiter({
      rules: limitRules(config.rate_limit),
      freeDisconnectsPerHour: config.abort.free_disconnects_per_hour,
      clock,
    }),
    concurrency: createMemoryConcurrency({
      maxWaitMs: config.concurrency.max_wait_ms,
      maxWaiting: config.concurrency.max_waiting,
    }),
  };
  const backends = guardBackends(options.backends?.(own) ?? own);
  const { ledger, concurrency } = backends;

  const chosen = chooseProviders(config.providers, (provider) =>
    findProviderKeys(provider, providerKinds[provider.kind], env, folder),
  );
  for (const name of chosen.keyless) log.warn({ provider: name }, "no API key for this provider: it is not used");
  const embeds = chosen.usable.some(({ config: one }) => one.kind === "simulator" && one.base_url === undefined);
  const simulator = embeds ? await createSimulator() : null;
  if (simulator !== null) closers.push(() => simulator.close());
  const upstream = openProviderServices({
    keyed: chosen.usable,
    config,
    simulatorUrl: simulator?.url ?? null,
    clock,
    random: Math.random,
    rereadKey: (provider) => {
      keyFiles.check(provider);
    },
    emit: bus.emit,
    log,
  });
  closers.push(() => upstream.close());
  const providers = chosen.usable.map((one) => one.config);
  const keyFiles = followKeyFiles({
    providers,
    folder,
    use: (name, keys) => {
      upstream.useKeys(name, keys);
    },
    log,
  });
  closers.push(() => {
    keyFiles.close();
  });

  const pricingPolicy = createPricingPolicy(config);
  const unpriced = unpricedModels(config, pricingPolicy.pricing, clock.now());
  if (unpriced.length > 0) {
    log.warn({ models: unpriced }, "these models have no price: users with a cost limit cannot use them");
  }
  const gateway = createGateway({
    router: upstream.router,
    ...backends,
    failover: upstream.failover,
    limitsOf,
    pricingPolicy: pricingPolicy,
    abortPolicy: config.abort.policy,
    drainBounds: { ms: config.abort.drain_seconds * 1000, tokens: config.abort.drain_tokens },
    collectLimitBytes: config.chat.collect_limit_bytes,
    emit: bus.emit,
    clock,
    log,
    maxParallel: config.concurrency.max_parallel,
    jsonHeartbeat: config.chat.json_heartbeat,
    warnPercent: config.quota.warn_percent,
    currency,
  });
  const metrics = createMetrics({
    providers: upstream.admin.list().map(({ name }) => name),
    models: configuredModels({ keyed: chosen.usable, config }).filter((name) => !name.includes("*")),
    gauges: {
      providers: () => upstream.admin.list(),
      inFlight: () => gateway.running(),
      permitsWaiting: () => concurrency.waiting(),
      journalUnsynced: () => memoryLedger.stats().lagRecords,
      behaviourLog: () => behaviourLog.health(),
      sinkErrors: () => bus.sinkErrors(),
      logLinesDropped: () => log.dropped(),
      alerts: () => webhook?.stats(),
    },
    processMetrics,
  });
  bus.subscribe("metrics", metrics.sink);

  const eventLoop = monitorEventLoopDelay({ resolution: 20 });
  eventLoop.enable();
  closers.push(() => {
    eventLoop.disable();
  });

  return {
    config,
    clock,
    log,
    emit: bus.emit,
    ...identity,
    ...events,
    audit,
    admin: createAdmin({ ...identity, ledger, limitsOf, providers: upstream.admin, config, clock, audit }),
    userAdmin: createUserAdmin({ ...identity, tierNames: tiers.names, clock, audit }),
    ...backends,
    limitsOf,
    today: () => dayOf(clock.now()),
    gateway,
    countTokens: createCountTokens(upstream.router, config.quota.estimate_bytes_per_token),
    models: upstream.models,
    knownModels: upstream.knownModels,
    providerAdmin: upstream.admin,
    metrics,
    metricsToken: env[config.metrics.token_env],
    checks: createHealthChecks({
      ...events,
      ...identity,
      ledger,
      models: upstream.models,
      eventLoop,
      disk,
    }),
    usersDir,
    simulated: chosen.simulated,
    rereadKeys() {
      tokenKeys.check();
      keyFiles.check();
    },
    close: () => closeAll(closers),
  };
}
