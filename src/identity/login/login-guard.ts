import type { Config } from "../../config/schema.ts";
import type { LoginLocked, LoginUnlocked } from "../../events/types.ts";
import { type BackoffRule, createFailureTable, type FailureTable } from "./failure-table.ts";
import type { Clock } from "../../lib/clock.ts";
import { createIpList, ipPrefix, type NetworkBits } from "../../lib/ip-list.ts";

/** The user and address of a login attempt. */
export interface LoginAttempt {
  /** A valid user name; there may be no such account. */
  readonly user: string;
  readonly ip: string;
  readonly traceId: string;
}

/** A password check in progress. Report its outcome exactly once. */
export interface LoginTry {
  /** Whether the account has logged in from this address recently. */
  readonly isKnown: boolean;
  /** The password was wrong, or the user unknown. */
  failed(): void;
  /** The password was right. */
  succeeded(): void;
  /** The outcome is unknown: it was not checked after all. */
  dropped(): void;
}

/** An account or address that has to wait before the next attempt. */
interface LockedLogin {
  readonly scope: LoginLocked["scope"];
  /** null if an address waits for all accounts. */
  readonly user: string | null;
  /** An IPv4 address or an IPv6 network of 64, 56 or 48 bits; null if an account waits for all addresses. */
  readonly address: string | null;
  readonly failures: number;
  readonly retryAfterMs: number;
}

/** Slows down password guessing. */
export interface LoginGuard {
  /** Null if the attempt is allowed. Changes nothing; call it before every login, also one that costs no hashing. */
  check(user: string, ip: string): { readonly retryAfterMs: number } | null;
  /** Call it in the same tick as `check`, right before a password is hashed. */
  start(attempt: LoginAttempt): LoginTry;
  /** Marks an address as one of the account's known ones, as a login from there does. */
  remember(user: string, ip: string): void;
  /** Forgets the failures of an account, but not those of addresses. Returns whether there were any. */
  unlock(user: string, by: { readonly admin: string; readonly ip: string; readonly traceId: string }): boolean;
  /** The accounts and addresses that have to wait now; at most `limit` of each scope. */
  locked(limit?: number): readonly LockedLogin[];
  /** The number of accounts and addresses remembered. */
  tracked(): number;
}

export interface LoginGuardOptions {
  /** Read at every use: its figures may change, and so may those below. */
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
  /** Whether an account of that name exists. */
  readonly hasAccount: (user: string) => boolean;
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
const widerNetworks: readonly (readonly [bits: NetworkBits, factor: number])[] = [
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
export function createLoginGuard(options: LoginGuardOptions): LoginGuard {
  const { rule, maxTracked, hasAccount, clock, emit } = options;
  const monotonic = (): number => clock.monotonic();
  const accounts = createFailureTable(rule, Infinity, monotonic);
  const inventedNames = createFailureTable(rule, maxTracked, monotonic);
  const addresses = createFailureTable(rule, maxTracked, monotonic);
  const networks = widerNetworks.map(([bits, factor]) => {
    return { bits, table: createFailureTable(withMoreFree(rule, factor), maxTracked, monotonic) };
  });
  const pairs = createFailureTable(rule, Infinity, monotonic);
  const knownAddresses = createKnownAddresses(() => options.knownAddressMs, monotonic);

  function countersOf(user: string, ip: string): readonly Counter[] {
    const address = ipPrefix(ip);
    if (knownAddresses.has(user, address)) {
      return [{ scope: "known_address", table: pairs, key: pairKey(user, address), strict: true }];
    }
    const table = hasAccount(user) ? accounts : inventedNames;
    const account: Counter = { scope: "account", table, key: user, strict: true };
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

  function fail({ table, key, scope }: Counter, { user, ip, traceId }: LoginAttempt): void {
    const tally = table.obtain(key);
    tally.end();
    const escalation = tally.fail(table.rule, monotonic());
    table.place(tally);
    if (escalation === null) return;
    const { failures } = tally;
    const waitMs = Math.round(tally.waitMs(table.rule, monotonic(), false));
    const known = hasAccount(user);
    emit({ type: "login.locked", at: clock.now(), traceId, ip, user, known, scope, failures, escalation, waitMs });
  }

  return {
    check(user, ip) {
      let retryAfterMs = 0;
      for (const { table, key, strict } of countersOf(user, ip)) {
        const waitMs = table.find(key)?.waitMs(table.rule, monotonic(), strict) ?? 0;
        retryAfterMs = Math.max(retryAfterMs, waitMs);
      }
      return retryAfterMs === 0 ? null : { retryAfterMs };
    },
    start(attempt) {
      const counters = countersOf(attempt.user, attempt.ip);
      const isKnown = counters.some(({ scope }) => scope === "known_address");
      for (const { table, key } of counters) table.obtain(key).begin();
      return {
        isKnown,
        failed() {
          for (const counter of counters) fail(counter, attempt);
        },
        succeeded() {
          for (const counter of counters) end(counter, true);
          remember(attempt.user, attempt.ip);
        },
        dropped() {
          for (const counter of counters) end(counter, false);
        },
      };
    },
    remember,
    unlock(user, { admin, ip, traceId }) {
      const own = [accounts.forget(user), inventedNames.forget(user)];
      const paired = knownAddresses.of(user).map((address) => pairs.forget(pairKey(user, address)));
      const found = [...own, ...paired].includes(true);
      const known = hasAccount(user);
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
    if (hasAccount(user)) knownAddresses.add(user, ipPrefix(ip));
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

/** Neither a user name nor an address contains a space. */
function pairKey(user: string, address: string): string {
  return `${user} ${address}`;
}

function ownersOf(key: string, scope: LockedLogin["scope"]): Pick<LockedLogin, "scope" | "user" | "address"> {
  if (scope === "account") return { scope, user: key, address: null };
  if (scope === "address") return { scope, user: null, address: key };
  const [user = "", address = ""] = key.split(" ");
  return { scope, user, address };
}

const dayMs = 86_400_000;

/** The login guard for the [security] config in force, which may change. */
export function openLoginGuard(
  security: () => Config["security"],
  options: Pick<LoginGuardOptions, "hasAccount" | "clock" | "emit">,
): LoginGuard {
  let shared = { of: security(), list: createIpList(security().login_exempt_addresses) };
  return createLoginGuard({
    hasAccount: options.hasAccount,
    clock: options.clock,
    emit: options.emit,
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
  });
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
