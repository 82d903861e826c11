import { createHash, randomUUID } from "node:crypto";
import { resolve } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createIdentity, type IdentityServices } from "./identity/create-identity.ts";
import { createPasswords, type Hasher } from "./identity/passwords/password.ts";
import { openTokenKeys } from "./identity/sessions/token-keys.ts";
import type { Backends } from "./backends.ts";
import { openFolders } from "./open-folders.ts";
import { openOidc, type Oidc } from "./open-oidc.ts";
import { openBackends, ratesOf } from "./open-backends.ts";
import type { GivenBackends, OpenBackendsOptions, OpenedBackends } from "./open-backends.ts";
import type { Redis } from "./lib/redis/redis.ts";
import type { Fleet } from "./fleet/fleet.ts";
import { countsBy, joinFleet } from "./join-fleet.ts";
import { version } from "./version.ts";
import { connectState, shareTokenSecret } from "./open-redis-state.ts";
import { type Audit, createAudit } from "./admin/audit.ts";
import { type Admin, createAdmin } from "./admin/open-admin.ts";
import { createUserAdmin, type UserAdmin } from "./admin/user-admin.ts";
import { createGateway, type Gateway } from "./gateway/handle-request.ts";
import type { Env, LoadedConfig } from "./config/load.ts";
import type { BootConfig } from "./config/boot.ts";
import type { Logger } from "./events/logger.ts";
import { createMetrics, type Metrics } from "./events/metrics.ts";
import type { Emit } from "./events/catalogue.ts";
import { openEvents, type Events } from "./events/open-events.ts";
import { createHealthChecks } from "./http/health-checks.ts";
import type { HealthCheck } from "./http/routes/ops.ts";
import { removeTemporaries } from "./lib/files/atomic-file.ts";
import { closeAll, type Closer } from "./lib/close-all.ts";
import { systemClock, type Clock } from "./lib/clock.ts";
import { nodeName } from "./lib/node-name.ts";
import { openDiskProbe } from "./lib/files/disk-probe.ts";
import type { LockLoss } from "./lib/files/lock-file.ts";
import type { ProcessTable } from "./lib/files/lock-owner.ts";
import { createLoadReading, type LoadReading } from "./lib/load-reading.ts";
import { createOverload, sampleMs, type Overload } from "./limits/overload.ts";
import type { Allowances } from "./quota/allowances.ts";
import { createScaleLimits } from "./quota/scaled-limits.ts";
import { createUsageSums, type UsageSums } from "./quota/usage/usage-sums.ts";
import { createZone } from "./quota/zone.ts";
import { ownRateNames } from "./config/rates-schema.ts";
import { openRisk } from "./risk/open-risk.ts";
import type { ModelList } from "./providers/model-list.ts";
import { createProviderServices } from "./providers/provider-services.ts";
import type { ProviderAdmin } from "./providers/provider-admin.ts";
import { createKeyFileStatus } from "./config/key-file-status.ts";
import { createLivePolicy, createReloadReport, openReloader } from "./live-policy.ts";
import type { Reloader } from "./config/reload.ts";
import type { Policy } from "./policy.ts";
import { openTracing } from "./telemetry/open-tracing.ts";
import type { Tracing } from "./telemetry/tracing.ts";

/** Everything that has state, built once and shared. */
export interface Services extends IdentityServices, Events, Backends, Oidc {
  /** What stays as it is until a restart. */
  readonly boot: BootConfig;
  /** The policy in force. A request reads it once, at its start. */
  readonly policy: () => Policy;
  /** Calls the listener with each new policy. */
  onPolicy(listener: (policy: Policy) => void): void;
  readonly clock: Clock;
  readonly log: Logger;
  readonly emit: Emit;
  readonly audit: Audit;
  readonly admin: Admin;
  readonly userAdmin: UserAdmin;
  /** What a user may use now, by tier, own limits, grants and trust. */
  readonly limitsOf: Allowances["limitsOf"];
  /** The local day, YYYY-MM-DD, in quota.timezone. */
  readonly today: () => string;
  readonly usageSums: UsageSums;
  readonly gateway: Gateway;
  readonly models: ModelList;
  readonly providerAdmin: ProviderAdmin;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
  readonly overload: Overload;
  readonly checks: readonly HealthCheck[];
  /** The name of this process. */
  readonly node: string;
  /** The absolute path of users/. */
  readonly usersDir: string;
  /** Where the state is shared with other processes; undefined if it is this one's alone. */
  readonly redis: Redis | undefined;
  /** How requests are served while it is away; undefined: not at all. */
  readonly allowance: OpenedBackends["allowance"];
  /** All processes that share it. */
  readonly fleet: Fleet | undefined;
  readonly reloader: Reloader;
  /** Reads the config and all files with secrets again at once. They are also watched while the proxy runs. */
  reload(by: string): Promise<void>;
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
  /** Instead of our own, or around them. */
  readonly backends?: GivenBackends;
  /** Hashes passwords; default: argon2id. */
  readonly hasher?: Hasher;
  /** Adds the process's own metrics; at most once per process. */
  readonly processMetrics?: boolean;
  /** Reads how loaded this process is; default: its event loop, heap and descriptors. */
  readonly readLoad?: () => LoadReading;
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
  const startedAt = clock.now();
  const onOpen = (close: Closer): void => {
    closers.push(close);
  };
  const usersDir = resolve(folder, config.storage.users_dir);
  const logsDir = resolve(folder, config.storage.logs_dir);
  const { processes, onLockLost: onLost, signal } = options;
  closers.push(await openFolders({ usersDir, logsDir, processes, onLost, signal, clock, log }));
  // Under the lock, before anything else writes here: removes the half-written files of a killed process.
  await removeTemporaries(usersDir, ".toml");
  const disk = await openDiskProbe(usersDir, clock);

  const zone = createZone(config.quota.timezone);
  const dayOf = (at: number): string => new Date(zone.dateAt(at)).toISOString().slice(0, 10);
  const node = nodeName(env, config.server.port);
  const events = await openEvents({ config, env, logsDir, node, dayOf, clock, log, onOpen });
  const { bus, behaviourLog, alertStats } = events;
  const common = { clock, log, emit: bus.emit };
  const tracing = await openTracing({ config: config.telemetry, env, version, node, log });
  closers.push(() => tracing.close());
  const redis = config.state.backend === "redis" ? await connectState({ env, config, clock, log }) : undefined;
  if (redis !== undefined) closers.push(() => redis.close());
  const keyFileStatus = createKeyFileStatus({ report: createReloadReport(bus.emit, clock), clock });
  const upstream = createProviderServices({
    ...common,
    random: Math.random,
    concurrency: () => policy().config.concurrency,
    rereadKey: (provider) => {
      live.rereadKeys(provider);
    },
  });
  closers.push(() => upstream.close());
  const live = await createLivePolicy({
    config,
    folder,
    env,
    upstream,
    keyFileStatus,
    ...common,
    check: ({ alerts }) => {
      events.checkAlerts(alerts);
    },
    usersOf: async (tier) => (await backends.users.search({ tier, limit: Infinity })).users,
    whenRunningEnd: () => gateway.whenRunningEnd(),
    onOpen,
  });
  const policy = (): Policy => live.current();
  const tierNames = (): readonly string[] => policy().tiers.names;
  const risk = await openRisk({
    usersDir,
    redis,
    config: config.risk,
    ownRules: ownRateNames(config),
    ...common,
  });
  closers.push(() => risk.close());
  bus.subscribe("risk", risk.sink);
  const scaleLimits = createScaleLimits();
  const limitsOf: Services["limitsOf"] = (account, ...more) =>
    scaleLimits(policy().limitsOf(account, ...more), isNamed(account) ? risk.trustOf(account).quota : 1);
  const audit = createAudit({ ...common, log: events.auditLog });
  const { max_hashes: maxHashes, max_waiting_logins: maxWaiting } = config.auth;
  const passwords = createPasswords({ maxHashes, maxWaiting, hasher: options.hasher });
  const rules = {
    auth: () => policy().config.auth,
    panel: () => policy().config.panel,
    security: () => policy().config.security,
  };
  const backendOptions: OpenBackendsOptions = {
    ...common,
    ...rules,
    given: options.backends,
    usersDir,
    config,
    tierNames,
    hashPassword: (password) => passwords.hash(password),
    newId,
    onOpen,
  };
  const { backends, configure, journalUnsynced, allowance } = await (redis === undefined
    ? openBackends(backendOptions)
    : (await import("./open-redis-backends.ts")).openRedisBackends({ ...backendOptions, redis }));
  // Behind the state: a folder that may not take part keeps its own secret.
  if (redis !== undefined) await shareTokenSecret(redis, usersDir, env);
  const tokenKeys = await openTokenKeys({
    env,
    usersDir,
    log,
    onOutcome: (outcome) => {
      keyFileStatus.update("JWT_SECRETS_FILE", outcome);
    },
  });
  closers.push(() => {
    tokenKeys.close();
  });
  const identity = createIdentity({ ...common, ...rules, ...backends, passwords, tokenKeys, newId });

  // What has state of its own is told the new figures.
  live.onChange(({ config: next, upstream: { names } }) => {
    configure(next);
    risk.configure(next.risk, ownRateNames(next));
    events.configureEvents(next);
    metrics.configure({ ...names, rules: ratesOf(next).map(({ name }) => name) });
  });

  const reloader = openReloader(loaded, { ...common, live, env, onOpen });

  const shared = await joinFleet({
    ...common,
    redis,
    reloader,
    onOpen,
    providers: upstream,
    facts: () => ({
      startedAt,
      version,
      address: node,
      config: createHash("sha256").update(JSON.stringify(policy().config)).digest("hex").slice(0, 12),
      quota: countsBy(config.quota),
    }),
  });

  const overload = createOverload({
    rule: () => policy().config.overload,
    read: options.readLoad ?? createLoadReading(sampleMs, () => clock.monotonic()),
    running: () => gateway.running(),
    monotonic: () => clock.monotonic(),
    onChange({ began, level, reason }) {
      const type = began ? "overload.began" : "overload.ended";
      bus.emit({ type, at: clock.now(), traceId: "", ip: "", level, reason });
    },
  });
  closers.push(() => {
    overload.close();
  });

  const gateway = createGateway({
    ...common,
    ...backends,
    policy,
    failover: upstream.failover,
    trustOf: (account) => risk.trustOf(account),
  });
  const metrics = createMetrics({
    ...policy().upstream.names,
    rules: ratesOf(config).map(({ name }) => name),
    gauges: {
      providers: () => upstream.admin.list(),
      inFlight: () => gateway.running(),
      overload: () => ({ level: overload.level(), loopDelayMs: overload.reading().loopDelayMs }),
      permitsHeld: () => backends.concurrency.inFlight(),
      permitsWaiting: () => backends.concurrency.waiting(),
      journalUnsynced,
      behaviourLog: () => behaviourLog.health(),
      sinks: () => events.sinks(),
      sinkErrors: () => bus.sinkErrors(),
      logLinesDropped: () => log.dropped(),
      alerts: alertStats,
      forwarding: events,
      config: () => reloader.status(),
      trust: () => risk.counts(),
      redis: redis === undefined ? undefined : () => redis.status(),
      allowance: allowance === undefined ? undefined : () => ({ ...allowance.stats(), serves: allowance.isServing() }),
      spans: tracing.counts,
    },
    version,
    processMetrics,
  });
  bus.subscribe("metrics", metrics.sink);

  const usageSums = createUsageSums({
    recorded: (after) => backends.ledger.recorded(after),
    timezone: config.quota.timezone,
  });
  closers.push(() => usageSums.close());
  const forAdmins = { ...common, ...backends, config: () => policy().config, audit };
  const userAdmin = createUserAdmin({ ...forAdmins, tierNames, stepNames: risk.stepNames });
  const eventLoop = monitorEventLoopDelay({ resolution: 20 });
  eventLoop.enable();
  closers.push(() => void eventLoop.disable());

  const admin = createAdmin({
    ...forAdmins,
    userAdmin,
    passwords,
    isAlone: redis === undefined,
    testAlert: events.testAlert,
    tierNames,
    limitsOf,
    providers: shared.providers,
    risk,
    quota: config.quota,
    reloader: shared.reloader,
  });
  const oidc = openOidc({ ...forAdmins, env, folder, userAdmin, admin });
  for (const uses of [admin.redemptions, admin.registrations]) {
    void uses.recover().catch((err: unknown) => {
      log.warn({ err }, "the uses of codes could not be checked");
    });
  }

  return {
    boot: config,
    node,
    policy,
    onPolicy: (listener) => {
      live.onChange(listener);
    },
    ...common,
    ...identity,
    ...events,
    audit,
    admin,
    userAdmin,
    ...oidc,
    ...backends,
    limitsOf,
    today: () => dayOf(clock.now()),
    usageSums,
    gateway,
    models: upstream.models,
    providerAdmin: shared.providers,
    metrics,
    tracing,
    overload,
    checks: createHealthChecks({
      ...events,
      ...backends,
      models: upstream.models,
      eventLoop,
      overload,
      disk,
      reloader,
      keyFileStatus,
      redis,
      allowance,
      spans: tracing.counts,
    }),
    usersDir,
    redis,
    allowance,
    fleet: shared.fleet,
    reloader,
    async reload(by) {
      tokenKeys.check();
      live.rereadKeys();
      if (loaded.path !== undefined) await shared.reloader.reload(by);
    },
    close: () => closeAll(closers),
  };
}

/** The limits of a group are asked for on nobody's behalf. */
function isNamed<A extends { readonly username?: string | undefined }>(
  account: A,
): account is A & { readonly username: string } {
  return account.username !== undefined;
}
