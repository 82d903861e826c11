import { guardBackends, type Backends } from "./backends.ts";
import type { Config } from "./config/schema.ts";
import type { Emit } from "./events/catalogue.ts";
import { openFileApiKeys } from "./identity/files/file-api-keys.ts";
import { openFileCodes } from "./identity/files/file-codes.ts";
import { openFileExternalLogins } from "./identity/files/file-external-logins.ts";
import { openFileGroups } from "./identity/files/file-groups.ts";
import { openFileSessions } from "./identity/files/file-sessions.ts";
import { openFileUsers } from "./identity/files/file-users.ts";
import { openMemoryLoginGuard } from "./identity/memory/memory-login-guard.ts";
import { createMemoryNonces } from "./identity/memory/memory-nonces.ts";
import type { Closer } from "./lib/close-all.ts";
import type { Clock } from "./lib/clock.ts";
import type { Log } from "./lib/log.ts";
import { createMemoryConcurrency } from "./limits/memory/memory-concurrency.ts";
import { createMemoryRateLimiter } from "./limits/memory/memory-rate-limiter.ts";
import { queueRule } from "./limits/permit-rules.ts";
import { createRateRules, type RateRule } from "./limits/rate-rules.ts";
import { openMemoryLedger } from "./quota/memory/memory-ledger.ts";
import type { Allowance } from "./quota/redis/allowance.ts";
import { sessionFigures } from "./identity/files/session.ts";

/**
 * Backends from outside. Those of an object are used instead of our own, which are then not opened; a function gets our
 * own ones, to wrap them. Whoever gives a backend closes it.
 */
export type GivenBackends = Partial<Backends> | ((own: Backends) => Partial<Backends>);

export interface OpenBackendsOptions {
  readonly given: GivenBackends | undefined;
  /** Must exist, and its lock must be held. */
  readonly usersDir: string;
  readonly config: Config;
  /** [auth] in force, which may change. */
  readonly auth: () => Config["auth"];
  /** [panel] in force, which may change. */
  readonly panel: () => Config["panel"];
  /** [security] in force, which may change. */
  readonly security: () => Config["security"];
  /** The tiers of config.toml now. */
  readonly tierNames: () => readonly string[];
  /** Passwords.hash */
  readonly hashPassword: (password: string) => Promise<string>;
  readonly clock: Clock;
  readonly log: Log;
  readonly emit: Emit;
  readonly newId: () => string;
  /** Called for each backend of our own that is to be closed, in the order of opening. */
  readonly onOpen: (close: Closer) => void;
}

export interface OpenedBackends {
  readonly backends: Backends;
  /** Tells our own limiters the figures of a changed config, and our own groups those of it. */
  readonly configure: (config: Pick<Config, "rate_limit" | "limits" | "groups" | "concurrency">) => void;
  /** Records of our own ledger that a power loss would lose now. */
  readonly journalUnsynced: () => number;
  /** How requests are served while the shared state is away; undefined: not at all, or there is none. */
  readonly allowance?: Pick<Allowance, "isServing" | "stats"> | undefined;
}

/** Opens the backends in files and in memory, except those that are given. */
export async function openBackends(options: OpenBackendsOptions): Promise<OpenedBackends> {
  const { given, config, clock, log, emit, newId } = options;
  const { quota, storage, usage } = config;
  const { auth, panel, security } = options;
  const replaced: Partial<Backends> = typeof given === "function" ? {} : (given ?? {});
  /** What our own ones need of others is asked of those in use. */
  const inUse: { backends?: Backends } = {};
  const used = (): Backends => {
    if (inUse.backends === undefined) throw new Error("the backends are not open yet");
    return inUse.backends;
  };
  const opened = <Store extends { close(): Promise<void> }>(store: Store): Store => {
    options.onOpen(() => store.close());
    return store;
  };
  const files = { usersDir: options.usersDir, clock, log };

  const { tierNames, hashPassword } = options;
  const ownUsers =
    replaced.users === undefined ? opened(await openFileUsers({ ...files, tierNames, hashPassword })) : undefined;
  const sessions =
    replaced.sessions ??
    opened(
      await openFileSessions({
        ...files,
        emit,
        newId,
        findAccount: (name) => used().users.get(name),
        figures: sessionFigures(auth, panel),
      }),
    );
  const apiKeys = replaced.apiKeys ?? opened(await openFileApiKeys({ ...files, newId }));
  const ownGroups =
    replaced.groups === undefined ? opened(await openFileGroups({ ...files, groups: config.groups })) : undefined;
  const codes = replaced.codes ?? opened(await openFileCodes(files));
  const externalLogins = replaced.externalLogins ?? opened(await openFileExternalLogins(files));
  let rated: Pick<Config, "rate_limit" | "limits"> = config;
  const rateRules = (): readonly RateRule[] => createRateRules(rated, ownGroups?.list());
  const ownGuard = openMemoryLoginGuard(security, { clock, emit });
  const keyIdsOf = async (user: string) => (await used().apiKeys.list(user)).map(({ id }) => id);
  const ownLedger =
    replaced.ledger === undefined
      ? opened(await openMemoryLedger({ ...files, quota, storage, usage, keyIdsOf }))
      : undefined;

  const ownRateLimiter = createMemoryRateLimiter({ rules: rateRules(), clock });
  ownGroups?.onChange(() => {
    ownRateLimiter.configure(rateRules());
  });
  const ownConcurrency = createMemoryConcurrency({
    rule: queueRule(config.concurrency),
    now: () => clock.monotonic(),
  });
  const own: Partial<Backends> = {
    ...(ownUsers === undefined ? {} : { users: ownUsers }),
    sessions,
    apiKeys,
    codes,
    externalLogins,
    loginGuard: ownGuard,
    nonces: createMemoryNonces(clock),
    ...(ownLedger === undefined ? {} : { ledger: ownLedger }),
    ...(ownGroups === undefined ? {} : { groups: ownGroups }),
    rateLimiter: ownRateLimiter,
    concurrency: ownConcurrency,
  };
  const all = { ...own, ...replaced } as Backends;
  const backends = guardBackends(typeof given === "function" ? { ...all, ...given(all) } : all);
  inUse.backends = backends;

  /** Users may come later, but a name that is misspelled never will. */
  async function warnUnknown(groups: Config["groups"]): Promise<void> {
    const names = new Set(await backends.users.names());
    const named = Object.values(groups).flatMap(({ members, owners }) => [...members, ...owners]);
    const unknown = new Set(named.filter((name) => !name.startsWith("@") && !names.has(name)));
    if (unknown.size === 0) return;
    const facts = { users: [...unknown].slice(0, 20), count: unknown.size };
    log.warn(facts, "groups of the config have members or owners that are no users");
  }

  await warnUnknown(config.groups);
  if (replaced.loginGuard === undefined) {
    // Even after a restart, users can log in from their known addresses while others guess their passwords.
    for (const user of await backends.users.names()) {
      for (const { ip } of [...(await backends.sessions.list(user))].reverse()) ownGuard.remember(user, ip);
    }
  }
  return {
    backends,
    configure(next) {
      rated = next;
      if (ownGroups === undefined) ownRateLimiter.configure(rateRules());
      else ownGroups.configure(next.groups);
      ownConcurrency.configure(queueRule(next.concurrency));
      ownUsers?.recheck();
      void warnUnknown(next.groups).catch(() => undefined);
    },
    journalUnsynced: () => ownLedger?.stats().lagRecords ?? 0,
  };
}

/** The rate rules of a config, those of its groups included. */
export function ratesOf(config: Pick<Config, "rate_limit" | "limits" | "groups">): readonly RateRule[] {
  return createRateRules(
    config,
    Object.entries(config.groups).map(([name, { rates }]) => ({ name, rates })),
  );
}
