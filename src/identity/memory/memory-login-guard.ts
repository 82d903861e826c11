import type { Config } from "../../config/schema.ts";
import type { LoginLocked, LoginUnlocked } from "../../events/catalogue.ts";
import { type BackoffRule, createFailureTable, type FailureTable } from "./failure-table.ts";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import type { LockedLogin, LoginAttempt, LoginGuard, LoginTry, Unlock } from "../login-guard.ts";
import { createIpList, ipPrefix, type NetworkBits } from "../../lib/ip-list.ts";

/** A password check in progress. */
interface MemoryLoginTry extends LoginTry {
  failed(): void;
  succeeded(): void;
  dropped(): void;
}

/** A login guard in this process's memory. */
export interface MemoryLoginGuard extends LoginGuard {
  check(attempt: Omit<LoginAttempt, "traceId">): void;
  start(attempt: LoginAttempt): MemoryLoginTry;
  unlock(unlock: Unlock): boolean;
  locked(limit?: number): readonly LockedLogin[];
  /** Marks an address as one of an existing account's known ones, as a login from there does. */
  remember(user: string, ip: string): void;
  /** The number of accounts and addresses remembered. */
  tracked(): number;
}

/** What the guard goes by. Read at every use: the figures may change. */
export interface GuardFigures {
  readonly rule: BackoffRule;
  /**
   * The number of addresses, of IPv6 networks of each size, and of nonexistent names to remember; a multiple of 4.
   * Beyond it the oldest are forgotten.
   */
  readonly maxTracked: number;
  /** How long an address from which an account has logged in stays known, in ms. */
  readonly knownAddressMs: number;
  /** Whether many users share an address: failures from there count against the account alone. */
  readonly isShared: (ip: string) => boolean;
}

export interface MemoryLoginGuardOptions extends GuardFigures {
  readonly clock: Clock;
  readonly emit: (event: LoginLocked | LoginUnlocked) => void;
}

interface Counter {
  readonly scope: LoginLocked["scope"];
  readonly table: FailureTable;
  readonly key: string;
  /** Whether concurrent guesses count as failed from the start. */
  readonly strict: boolean;
}

/**
 * IPv6 networks that a single attacker may own, and how many times the failures of one address they are allowed: the
 * larger ones may belong to several people.
 */
export const widerNetworks: readonly (readonly [bits: NetworkBits, factor: number])[] = [
  [56, 2],
  [48, 4],
];

/**
 * Counts failures per account and per address. An attempt from an address that the account has logged in from recently
 * counts for that pair alone, so nobody else can lock its owner out; every other attempt counts for the account and for
 * the address, and waits for both.
 *
 * A success clears the counter that admitted it: the account's, or the pair's. It does not clear the address's:
 * otherwise an attacker with one account could keep guessing at all the others. For addresses, concurrent guesses don't
 * count before they have failed: in the morning a whole office logs in at once.
 *
 * An account's counter is never evicted by others: there are no more of them than accounts. Nonexistent names are kept
 * separately, and look the same from outside.
 */
export function createMemoryLoginGuard(options: MemoryLoginGuardOptions): MemoryLoginGuard {
  const { rule, maxTracked, clock, emit } = options;
  const monotonic = (): number => clock.monotonic();
  const accounts = createFailureTable(rule, Infinity, monotonic);
  const inventedNames = createFailureTable(rule, maxTracked, monotonic);
  const addresses = createFailureTable(rule, maxTracked, monotonic);
  const networks = widerNetworks.map(([bits, factor]) => {
    return { bits, table: createFailureTable(withMoreFree(rule, factor), maxTracked, monotonic) };
  });
  const pairs = createFailureTable(rule, Infinity, monotonic);
  const knownAddresses = createKnownAddresses(() => options.knownAddressMs, monotonic);

  function countersOf(attempt: Omit<LoginAttempt, "traceId">): readonly Counter[] {
    const { user, known, ip } = attempt;
    const name = countedName(attempt);
    const address = ipPrefix(ip);
    if (knownAddresses.has(user, address)) {
      return [{ scope: "known_address", table: pairs, key: pairKey(name, address), strict: true }];
    }
    const table = known ? accounts : inventedNames;
    const account: Counter = { scope: "account", table, key: name, strict: true };
    if (options.isShared(ip)) return [account];
    const own: Counter = { scope: "address", table: addresses, key: address, strict: false };
    if (!address.includes(":")) return [account, own];
    const wider = networks.map(({ bits, table }) => ({ ...own, table, key: ipPrefix(ip, bits) }));
    return [account, own, ...wider];
  }

  function end({ table, key, scope }: Counter, succeeded: boolean): void {
    const tally = table.find(key);
    if (tally === undefined) return;
    tally.end();
    if (succeeded && scope !== "address") {
      tally.clear(monotonic());
      table.place(tally);
    }
    if (tally.isIdle()) table.forget(key);
  }

  function fail({ table, key, scope }: Counter, { user, known, ip, traceId }: LoginAttempt): void {
    const tally = table.obtain(key);
    tally.end();
    const escalation = tally.fail(table.rule, monotonic());
    table.place(tally);
    if (escalation === null) return;
    const { failures } = tally;
    const waitMs = Math.round(tally.waitMs(table.rule, monotonic(), false));
    emit({ type: "login.locked", at: clock.now(), traceId, ip, user, known, scope, failures, escalation, waitMs });
  }

  function admit(counters: readonly Counter[]): void {
    let retryAfterMs = 0;
    for (const { table, key, strict } of counters) {
      const waitMs = table.find(key)?.waitMs(table.rule, monotonic(), strict) ?? 0;
      retryAfterMs = Math.max(retryAfterMs, waitMs);
    }
    if (retryAfterMs > 0) throw new AppError("login_blocked", { retryAfterSeconds: retryAfterMs / 1000 });
  }

  return {
    check(attempt) {
      admit(countersOf(attempt));
    },
    start(attempt) {
      const counters = countersOf(attempt);
      admit(counters);
      const isKnown = counters.some(({ scope }) => scope === "known_address");
      for (const { table, key } of counters) table.obtain(key).begin();
      return {
        isKnown,
        failed() {
          for (const counter of counters) fail(counter, attempt);
        },
        succeeded() {
          for (const counter of counters) end(counter, true);
          if (attempt.known) remember(attempt.user, attempt.ip);
        },
        dropped() {
          for (const counter of counters) end(counter, false);
        },
      };
    },
    remember,
    unlock({ user, known, admin, ip, traceId }) {
      const forgotten = countedNames(user).flatMap((name) => [
        accounts.forget(name),
        inventedNames.forget(name),
        ...knownAddresses.of(user).map((address) => pairs.forget(pairKey(name, address))),
      ]);
      const found = forgotten.includes(true);
      if (found) emit({ type: "login.unlocked", at: clock.now(), traceId, ip, user, known, by: admin });
      return found;
    },
    locked: (limit = 1000) => [
      ...waiting(accounts, "account", limit),
      ...waiting(inventedNames, "account", limit),
      ...waiting(pairs, "known_address", limit),
      ...[addresses, ...networks.map(({ table }) => table)].flatMap((table) => waiting(table, "address", limit)),
    ],
    tracked: () =>
      [accounts, inventedNames, pairs, addresses, ...networks.map(({ table }) => table)].reduce(
        (sum, { size }) => sum + size,
        0,
      ),
  };

  function remember(user: string, ip: string): void {
    knownAddresses.add(user, ipPrefix(ip));
  }

  function waiting(table: FailureTable, scope: LockedLogin["scope"], limit: number): LockedLogin[] {
    const found: LockedLogin[] = [];
    for (const tally of table.escalated()) {
      if (found.length >= limit) break;
      const retryAfterMs = Math.round(tally.waitMs(table.rule, monotonic(), false));
      if (retryAfterMs > 0) found.push({ ...ownersOf(tally.key, scope), failures: tally.failures, retryAfterMs });
    }
    return found;
  }
}

/** The same rule with several times as many free failures. */
function withMoreFree(rule: BackoffRule, factor: number): BackoffRule {
  return {
    get freeFailures() {
      return rule.freeFailures * factor;
    },
    get firstWaitMs() {
      return rule.firstWaitMs;
    },
    get maxWaitMs() {
      return rule.maxWaitMs;
    },
    get quietMs() {
      return rule.quietMs;
    },
  };
}

/** A user's codes are counted under a name that no user can have. */
const codesSuffix = "/code";

/** The name under which the guesses at an account are counted. */
export function countedName({ user, guesses }: Pick<LoginAttempt, "user" | "guesses">): string {
  return guesses === "code" ? user + codesSuffix : user;
}

/** All names under which guesses at an account are counted. */
export function countedNames(user: string): readonly string[] {
  return [user, user + codesSuffix];
}

/** The key of a counted name at a known address: neither contains a space. */
export function pairKey(name: string, address: string): string {
  return `${name} ${address}`;
}

export function ownersOf(
  key: string,
  scope: LockedLogin["scope"],
): Pick<LockedLogin, "scope" | "user" | "address" | "guesses"> {
  if (scope === "address") return { scope, user: null, address: key, guesses: null };
  const [name = "", address = null] = scope === "account" ? [key] : key.split(" ");
  const isCode = name.endsWith(codesSuffix);
  const user = isCode ? name.slice(0, -codesSuffix.length) : name;
  return { scope, user, address, guesses: isCode ? "code" : "password" };
}

const dayMs = 86_400_000;

/** The login guard for the [security] config in force, which may change. */
export function openMemoryLoginGuard(
  security: () => Config["security"],
  options: Pick<MemoryLoginGuardOptions, "clock" | "emit">,
): MemoryLoginGuard {
  const figures = guardFigures(security);
  const { rule, maxTracked } = figures;
  return createMemoryLoginGuard({
    clock: options.clock,
    emit: options.emit,
    rule,
    maxTracked,
    isShared: (ip) => figures.isShared(ip),
    get knownAddressMs() {
      return figures.knownAddressMs;
    },
  });
}

/** What [security] says now. */
export function guardFigures(security: () => Config["security"]): GuardFigures {
  let shared = { of: security(), list: createIpList(security().login_exempt_addresses) };
  return {
    rule: {
      get freeFailures() {
        return security().login_free_failures;
      },
      get firstWaitMs() {
        return security().login_first_wait_seconds * 1000;
      },
      get maxWaitMs() {
        return security().login_max_wait_seconds * 1000;
      },
      get quietMs() {
        return security().login_forget_seconds * 1000;
      },
    },
    maxTracked: security().login_max_tracked,
    isShared(ip) {
      const of = security();
      if (shared.of !== of) shared = { of, list: createIpList(of.login_exempt_addresses) };
      return shared.list.has(ip);
    },
    get knownAddressMs() {
      return security().login_known_address_days * dayMs;
    },
  };
}

/** The addresses from which each account has logged in recently. */
interface KnownAddresses {
  has(user: string, address: string): boolean;
  add(user: string, address: string): void;
  of(user: string): readonly string[];
}

/** Addresses remembered per user, and users remembered; beyond it the least recently used is forgotten. */
const maxOfUser = 8;
const maxUsers = 100_000;

/** Remembers for `keepMs` after the last login. In memory only: after a restart no address is known. */
function createKnownAddresses(keepMs: () => number, monotonic: () => number): KnownAddresses {
  /** When each address was last used, in monotonic ms. */
  const users = new Map<string, Map<string, number>>();

  const isFresh = (usedAt: number | undefined): boolean => usedAt !== undefined && monotonic() - usedAt < keepMs();

  return {
    has: (user, address) => isFresh(users.get(user)?.get(address)),
    add(user, address) {
      const addresses = users.get(user) ?? new Map<string, number>();
      setLast(users, user, addresses, maxUsers);
      setLast(addresses, address, monotonic(), maxOfUser);
    },
    of: (user) => [...(users.get(user)?.keys() ?? [])],
  };
}

/** Sets a key as the newest and drops the oldest if there are too many. */
function setLast<V>(map: Map<string, V>, key: string, value: V, max: number): void {
  map.delete(key);
  map.set(key, value);
  const [oldest] = map.keys();
  if (map.size > max && oldest !== undefined) map.delete(oldest);
}
