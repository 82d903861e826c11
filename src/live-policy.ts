import { existsSync } from "node:fs";
import { basename } from "node:path";
import { shownChanges } from "./config/difference.ts";
import type { KeyFileStatus } from "./config/key-file-status.ts";
import { createReloader, type Reloader, type ReloadReport } from "./config/reload.ts";
import { watchConfig } from "./config/watch.ts";
import type { Emit } from "./events/catalogue.ts";
import { readClientSecret } from "./config/oidc-secrets.ts";
import { findProviderKeys, followKeyFiles } from "./config/provider-keys.ts";
import { ConfigError, parseConfig, readConfigText, type Env, type LoadedConfig } from "./config/load.ts";
import type { Config } from "./config/schema.ts";
import { unpricedModels } from "./gateway/request-cost.ts";
import type { Clock } from "./lib/clock.ts";
import type { Closer } from "./lib/close-all.ts";
import type { Log } from "./lib/log.ts";
import { createPolicy, type Policy } from "./policy.ts";
import { providerKinds } from "./providers/kinds/kinds.ts";
import { chooseProviders } from "./providers/open-providers.ts";
import type { ProviderServices } from "./providers/provider-services.ts";
import { createSimulator, type Simulator } from "./simulator/server.ts";

/** The policy in force, behind one pointer. */
export interface LivePolicy {
  /** The policy in force. A request reads it once, at its start. */
  current(): Policy;
  /** Calls the listener with each new policy, after it has come into force. */
  onChange(listener: (policy: Policy) => void): void;
  /**
   * Checks a config and makes its policy; changes nothing yet.
   * @returns puts the policy in force, at once and as a whole
   * @throws ConfigError if the running proxy can't use it, although its schema accepts it
   */
  prepare(config: Config): Promise<() => void>;
  /** Reads all key files of providers again at once, or those of one provider. */
  rereadKeys(provider?: string): void;
}

export interface LivePolicyOptions {
  readonly config: Config;
  /** The folder for relative key files. */
  readonly folder: string;
  readonly env: Env;
  readonly upstream: ProviderServices;
  readonly keyFileStatus: Pick<KeyFileStatus, "update" | "forget">;
  /** Throws Error if something else can't be run with a config. Not called for the first one. */
  readonly check: (config: Config) => void;
  /** The users of a tier, who must not lose it. */
  readonly usersOf: (tier: string) => Promise<readonly { readonly username: string }[]>;
  /** Resolves when all requests have ended that run now. */
  readonly whenRunningEnd: () => Promise<void>;
  readonly clock: Clock;
  readonly log: Log;
  /** Called for each resource to close, in the order of opening. */
  readonly onOpen: (close: Closer) => void;
}

/** Creates the policy of the first config, and what replaces it. Rejects as `prepare` does. */
export async function createLivePolicy(options: LivePolicyOptions): Promise<LivePolicy> {
  const { folder, env, upstream, clock, log, onOpen } = options;
  const listeners: ((policy: Policy) => void)[] = [];
  let policy: Policy | undefined;
  let simulator: Simulator | null = null;
  const keyFiles = followKeyFiles({
    folder,
    use: (name, keys) => {
      upstream.useKeys(name, keys);
    },
    status: options.keyFileStatus,
    log,
  });
  onOpen(() => {
    keyFiles.close();
  });

  async function simulatorFor(isNeeded: boolean): Promise<Simulator | null> {
    if (isNeeded && simulator === null) {
      const started = (simulator = await createSimulator());
      onOpen(() => started.close());
    }
    return simulator;
  }

  async function prepare(config: Config): Promise<() => void> {
    const chosen = chooseProviders(config.providers, (provider) =>
      findProviderKeys(provider, providerKinds[provider.kind], env, folder),
    );
    const secretProblems = config.oidc.flatMap((issuer) =>
      problemsOf(() => {
        readClientSecret(issuer, env, folder);
      }),
    );
    if (secretProblems.length > 0) throw new ConfigError(secretProblems.join("\n"));
    if (policy !== undefined) {
      const before = policy;
      const problems = [
        ...problemsOf(() => {
          options.check(config);
        }),
        ...keyProblems(chosen, before),
        ...(await tierProblems(config, before, options.usersOf)),
      ];
      if (problems.length > 0) throw new ConfigError(problems.join("\n"));
    }
    const embeds = chosen.usable.some(({ config: one }) => one.kind === "simulator" && one.base_url === undefined);
    const running = await simulatorFor(embeds);
    const prepared = upstream.prepare({ keyed: chosen.usable, config, simulatorUrl: running?.url ?? null });
    const next = createPolicy({
      config,
      upstream: prepared,
      simulated: chosen.simulated,
      keyless: chosen.keyless,
      capOf: upstream.caps.capOf,
      env,
      clock,
    });
    return () => {
      warn(next);
      prepared.use(options.whenRunningEnd);
      keyFiles.follow(chosen.usable.map((one) => one.config));
      policy = next;
      for (const listener of listeners) listener(next);
    };
  }

  function warn({ config, keyless, pricingPolicy }: Policy): void {
    for (const name of keyless) log.warn({ provider: name }, "no API key for this provider: it is not used");
    const named = new Set(config.limits.flatMap(({ groups = [] }) => groups));
    const unknown = [...named].filter((group) => !Object.hasOwn(config.groups, group));
    if (unknown.length > 0) {
      log.warn(
        { groups: unknown },
        "rules for rates name groups that the config doesn't have: administrators may add them",
      );
    }
    const unpriced = unpricedModels(config, pricingPolicy.pricing, clock.now());
    if (unpriced.length > 0) {
      log.warn({ models: unpriced }, "these models have no price: users with a cost limit cannot use them");
    }
  }

  (await prepare(options.config))();
  return {
    current() {
      if (policy === undefined) throw new Error("there is no policy yet");
      return policy;
    },
    onChange: (listener) => listeners.push(listener),
    prepare,
    rereadKeys(provider) {
      keyFiles.check(provider);
    },
  };
}

/** The message of what a check throws. */
function problemsOf(check: () => void): readonly string[] {
  try {
    check();
    return [];
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)];
  }
}

/**
 * At the start a provider without a key is left out. A running proxy does not lose one that way: the variables of its
 * environment can't change, so the name of the variable is wrong.
 */
function keyProblems(
  { keyless, simulated }: { readonly keyless: readonly string[]; readonly simulated: boolean },
  before: Policy,
): readonly string[] {
  const lost = keyless.filter((name) => !before.keyless.includes(name));
  if (lost.length > 0) {
    const expected = "expected an API key in the named environment variable or api_key_file, got none";
    return lost.map((name) => `providers.${name}: ${expected}; a variable can only be added with a restart`);
  }
  if (!simulated || before.simulated) return [];
  return ["providers: expected at least one that is enabled and has an API key, got none"];
}

/** Users of a removed tier could use nothing. Those whose tier was unknown before are reported elsewhere. */
async function tierProblems(
  { quota: { tiers } }: Config,
  before: Policy,
  usersOf: LivePolicyOptions["usersOf"],
): Promise<readonly string[]> {
  const removed = before.tiers.names.filter((name) => !Object.hasOwn(tiers, name));
  const found = await Promise.all(removed.map(async (tier) => ({ tier, users: await usersOf(tier) })));
  return found.flatMap(({ tier, users }) => {
    if (users.length === 0) return [];
    const names = users.slice(0, 5).map(({ username }) => username);
    const some = names.join(", ") + (users.length > 5 ? ", ..." : "");
    return [`quota.tiers.${tier}: expected this tier to stay, since it has ${users.length} users (${some})`];
  });
}

/** Creates a function that emits what a reload has done. */
export function createReloadReport(emit: Emit, clock: Clock): (report: ReloadReport) => void {
  return ({ ok, by, changes, restartNeeded, error = "" }) => {
    const base = { at: clock.now(), traceId: "", ip: "", by };
    if (!ok) emit({ type: "config.rejected", ...base, error });
    else {
      const shown = shownChanges(changes);
      emit({ type: "config.reloaded", ...base, changes: shown, count: changes.length, restartNeeded });
    }
  };
}

/**
 * Opens the reloader of a config file, and watches the file.
 * @returns a reloader that refuses every reload if there is no place where the file could be
 */
export function openReloader(
  { config, file, path, text = "", folder }: LoadedConfig,
  options: {
    readonly live: LivePolicy;
    readonly env: Env;
    readonly emit: Emit;
    readonly clock: Clock;
    readonly log: Log;
    readonly onOpen: (close: Closer) => void;
  },
): Reloader {
  const { live, env, emit, clock, log } = options;
  const reloader = createReloader({
    read() {
      if (path === undefined) throw new ConfigError("there is no config file");
      return file === null && !existsSync(path) ? "" : readConfigText(path);
    },
    parse: (next) => parseConfig(next, basename(path ?? ""), env),
    started: { config, text },
    prepare: (next) => live.prepare(next),
    report: createReloadReport(emit, clock),
    folder,
    clock,
    log,
  });
  if (path !== undefined) {
    const watch = watchConfig({ path, onChange: () => reloader.reload("file") });
    options.onOpen(() => {
      watch.close();
    });
  }
  return reloader;
}
