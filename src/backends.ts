import { AppError } from "./errors.ts";
import type { ApiKeys } from "./identity/api-keys.ts";
import type { Codes } from "./identity/codes.ts";
import type { ExternalLogins } from "./identity/external-logins.ts";
import type { Groups } from "./identity/groups.ts";
import type { LoginGuard } from "./identity/login-guard.ts";
import type { Nonces } from "./identity/nonces.ts";
import type { Sessions } from "./identity/sessions.ts";
import type { Users } from "./identity/users.ts";
import type { Awaitable } from "./lib/awaitable.ts";
import { ClientDisconnectedError } from "./lib/disconnect-signal.ts";
import type { ConcurrencyLimiter } from "./limits/concurrency.ts";
import type { RateLimitRefusal, RateLimiter, RateTicket, RateUse } from "./limits/rate-limiter.ts";
import type { BucketState, Charge, ChargeSource, Hold, Ledger, Settlement } from "./quota/ledger.ts";

/**
 * The ports: everything that the proxy keeps between requests. Each may answer at once or with a promise. A call that
 * fails is one request's failure; see guardBackends.
 */
export interface Backends {
  readonly ledger: Ledger;
  readonly rateLimiter: RateLimiter;
  readonly concurrency: ConcurrencyLimiter;
  readonly users: Users;
  readonly sessions: Sessions;
  readonly apiKeys: ApiKeys;
  readonly groups: Groups;
  readonly codes: Codes;
  readonly externalLogins: ExternalLogins;
  readonly loginGuard: LoginGuard;
  readonly nonces: Nonces;
}

/** Makes every failure of a backend an AppError; see guard. */
export function guardBackends({ ledger, ...others }: Backends): Backends {
  const guarded = guard(ledger);
  return {
    rateLimiter: guardRateLimiter(others.rateLimiter),
    concurrency: guardConcurrency(others.concurrency),
    users: guard(others.users),
    sessions: guard(others.sessions),
    apiKeys: guard(others.apiKeys),
    groups: guard(others.groups),
    codes: guard(others.codes),
    externalLogins: guard(others.externalLogins),
    loginGuard: guardLoginGuard(others.loginGuard),
    nonces: guard(others.nonces),
    ledger: {
      ...guarded,
      reserve(request) {
        const hold = guarded.reserve(request);
        return hold instanceof Promise ? hold.then((later) => new GuardedHold(later)) : new GuardedHold(hold);
      },
      usageOfAll: (span) => guardEach(ledger.usageOfAll(span)),
      recorded: (after) => guardEach(ledger.recorded(after)),
    },
  };
}

/** What is iterated, with the result of storageError for each failure. */
async function* guardEach<T>(items: AsyncIterable<T>): AsyncGenerator<T> {
  try {
    yield* items;
  } catch (error) {
    throw storageError(error);
  }
}

function guardLoginGuard(port: LoginGuard): LoginGuard {
  const guarded = guard(port);
  return { ...guarded, start: async (attempt) => guard(await guarded.start(attempt)) };
}

function guardRateLimiter(port: RateLimiter): RateLimiter {
  const guarded = guard(port);
  return {
    ...guarded,
    take(request) {
      const taken = guarded.take(request);
      return taken instanceof Promise ? taken.then(guardTicket) : guardTicket(taken);
    },
  };
}

function guardConcurrency(port: ConcurrencyLimiter): ConcurrencyLimiter {
  const guarded = guard(port);
  return {
    ...guarded,
    acquire(request, signal, onWaiting) {
      const permit = guarded.acquire(request, signal, onWaiting);
      // One that counts no provider is only released, whose failure is of no consequence.
      if (request.providers.length === 0) return permit;
      return permit instanceof Promise ? permit.then(guard) : guard(permit);
    },
  };
}

function guardTicket(taken: RateTicket | RateLimitRefusal): RateTicket | RateLimitRefusal {
  return "settle" in taken ? new GuardedTicket(taken) : taken;
}

/** As guard, for the object that a rate limiter makes for each request. */
class GuardedTicket implements RateTicket {
  readonly #ticket: RateTicket;

  constructor(ticket: RateTicket) {
    this.#ticket = ticket;
  }

  get states(): RateTicket["states"] {
    return this.#ticket.states;
  }

  get provider(): string | null {
    return this.#ticket.provider;
  }

  move(provider: string): Awaitable<RateLimitRefusal | null> {
    return calling(() => this.#ticket.move(provider));
  }

  settle(use: RateUse): Awaitable<void> {
    return calling(() => this.#ticket.settle(use));
  }
}

/** A port whose verbs throw or reject with the result of storageError. They answer at once where the port does. */
function guard<Port extends object>(port: Port): Port {
  const verbs = verbsOf(port).map(
    ([name, verb]) => [name, (...given: unknown[]) => calling(() => verb.apply(port, given))] as const,
  );
  return { ...port, ...Object.fromEntries(verbs) };
}

type Verb = (...given: unknown[]) => unknown;

/** The functions of a port; those of an object made by a class are not its own. */
function verbsOf(port: object): readonly (readonly [string, Verb])[] {
  const names = new Set<string>();
  for (let at: unknown = port; at instanceof Object && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const name of Object.getOwnPropertyNames(at)) if (name !== "constructor") names.add(name);
  }
  return [...names].flatMap((name) => {
    const verb: unknown = Reflect.get(port, name);
    return typeof verb === "function" ? [[name, verb as Verb] as const] : [];
  });
}

/** As guard, for the object that a ledger makes for each request. */
class GuardedHold implements Hold {
  readonly #hold: Hold;

  constructor(hold: Hold) {
    this.#hold = hold;
  }

  get committed(): boolean {
    return this.#hold.committed;
  }

  get buckets(): readonly BucketState[] {
    return this.#hold.buckets;
  }

  commit(first: Charge, source?: ChargeSource): Awaitable<readonly BucketState[]> {
    return calling(() => this.#hold.commit(first, source));
  }

  grow(extra: Charge): Awaitable<BucketState | null> {
    return calling(() => this.#hold.grow(extra));
  }

  settle(settlement: Settlement): Awaitable<readonly BucketState[]> {
    return calling(() => this.#hold.settle(settlement));
  }
}

function calling<T>(call: () => Awaitable<T>): Awaitable<T> {
  try {
    const result = call();
    if (!(result instanceof Promise)) return result;
    return result.catch((error: unknown) => {
      throw storageError(error);
    });
  } catch (error) {
    throw storageError(error);
  }
}

/**
 * The error of a backend as one of the request: an AppError stays, a bug (RangeError) stays, and everything else, such
 * as a lost connection, becomes storage_unavailable.
 */
function storageError(error: unknown): Error {
  if (error instanceof AppError || error instanceof ClientDisconnectedError || error instanceof RangeError)
    return error;
  const message = "What the proxy stores cannot be read or written now. Try again.";
  return new AppError("storage_unavailable", { message, cause: error, retryAfterSeconds: 1 });
}
