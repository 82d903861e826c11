import type { ConcurrencyLimiter, Permit, PermitKind, PermitRequest, PermitScope, Waiting } from "../concurrency.ts";
import { AppError } from "../../errors.ts";
import { ClientDisconnectedError, type DisconnectSignal } from "../../lib/disconnect-signal.ts";
import { concurrencyExceeded, type QueueRule } from "../permit-rules.ts";
import { createFairLine, type Scope, type Waiter } from "./fair-line.ts";
import { waitForPermit } from "../wait-for-permit.ts";

/** A concurrency limiter whose rule can be changed while it runs. */
export interface MemoryConcurrency extends ConcurrencyLimiter {
  /** Uses another rule from now on. Permits stay valid, and requests in the queue wait as long as they were to. */
  configure(rule: QueueRule): void;
}

export interface MemoryConcurrencyOptions {
  readonly rule: QueueRule;
  /** Monotonic ms, for the expected waits. */
  readonly now: () => number;
}

/** What a request needs, as scopes in force. */
type Needs = Pick<Waiter, "userScope" | "scopes" | "providers">;

const none: readonly Scope[] = [];
/** Scopes that nobody uses are kept up to this number at least, so that most requests create none. */
const keptScopes = 1000;

/** Keeps the permits in this process's memory: counts by scope, and one line for all who wait. */
export function createMemoryConcurrency({ rule: firstRule, now }: MemoryConcurrencyOptions): MemoryConcurrency {
  let rule = firstRule;
  const scopesByKind: Readonly<Record<PermitKind, Map<string, Scope>>> = {
    user: new Map(),
    group: new Map(),
    model: new Map(),
    provider: new Map(),
    process: new Map(),
  };
  const line = createFairLine(now);
  const rejectors = new Set<(reason: Error) => void>();
  let known = 0;
  let forgetAt = keptScopes;
  let held = 0;
  let closed = false;

  function scopeOf({ kind, key, max }: PermitScope): Scope {
    const scopes = scopesByKind[kind];
    let scope = scopes.get(key);
    if (scope === undefined) {
      known += 1;
      scope = { kind, key, max, held: 0, waiting: 0, reserved: false };
      scopes.set(key, scope);
    } else if (scope.max !== max) {
      scope.max = max;
      if (line.size() > 0) serve(scope);
    }
    return scope;
  }

  /** Forgets the scopes that nobody uses. Done each time their number has doubled, so it costs little for each. */
  function forgetUnused(): void {
    for (const scopes of Object.values(scopesByKind)) {
      for (const [key, scope] of scopes) if (scope.held === 0 && scope.waiting === 0) scopes.delete(key);
    }
    known = Object.values(scopesByKind).reduce((sum, { size }) => sum + size, 0);
    forgetAt = Math.max(keptScopes, 2 * known);
  }

  function take({ userScope, scopes, providers }: Needs): MemoryPermit {
    const provider = providers.length === 0 ? null : (line.providerWithRoom(providers) ?? null);
    held += 1;
    if (userScope !== null) userScope.held += 1;
    for (const scope of scopes) scope.held += 1;
    if (provider !== null) provider.held += 1;
    if (userScope !== null && line.size() > 0) line.userChanged(userScope.key);
    return new MemoryPermit(owner, userScope, scopes, provider);
  }

  /** Grants waiting requests what there is room for, after a change of a scope. */
  function serve({ kind, key }: Pick<Scope, "kind" | "key">): void {
    if (kind === "user") line.userChanged(key);
    for (let next; (next = line.next() as MemoryWaiter | undefined) !== undefined;) next.grant(take(next));
  }

  const owner: PermitOwner = {
    move(permit, to) {
      const target = scopeOf(to);
      if (line.providerWithRoom([target]) === undefined) return false;
      const { place } = permit;
      target.held += 1;
      permit.place = target;
      if (place === null) return true;
      place.held -= 1;
      if (line.size() > 0) serve(place);
      return true;
    },
    release({ userScope, scopes, place }) {
      held -= 1;
      if (userScope !== null) userScope.held -= 1;
      for (const scope of scopes) scope.held -= 1;
      if (place !== null) place.held -= 1;
      if (line.size() > 0) serve(userScope ?? anyScope);
    },
  };

  function wait(
    needs: Needs,
    request: PermitRequest,
    signal: DisconnectSignal,
    onWaiting: ((now: () => Waiting) => void) | undefined,
  ): Promise<Permit> {
    const { user, weight } = request;
    return waitForPermit({
      request,
      signal,
      rejectors,
      maxWaitMs: rule.maxWaitMs,
      join(grant) {
        const waiter: MemoryWaiter = { ...needs, user, weight, place: 0, arrival: 0, queue: null, grant };
        const expectedMs = (): number | null => {
          const interval = line.intervalOf(waiter);
          return interval === null ? null : interval * line.placeOf(waiter);
        };
        line.join(waiter);
        onWaiting?.(() => ({ place: line.placeOf(waiter), expectedMs: expectedMs() }));
        return {
          exceeded: () => exceeded(needs, expectedMs()),
          useCap: scopeOf,
          leave() {
            line.leave(waiter);
            // If a place was kept for it, that is free for others now.
            if (line.size() > 0) serve(anyScope);
          },
        };
      },
    });
  }

  return {
    configure(next) {
      rule = next;
    },
    acquire(request, signal, onWaiting) {
      if (closed) throw new AppError("shutting_down", { retryAfterSeconds: 1 });
      if (signal.gone) throw new ClientDisconnectedError();
      if (known >= forgetAt) forgetUnused();
      const needs = needsOf(request.scopes, request.providers, scopeOf);
      if (line.hasRoom(needs)) {
        const permit = take(needs);
        // A demand whose users all run as much as they may has no place kept for it.
        if (line.size() > 0) serve(anyScope);
        return permit;
      }
      if (rule.maxWaitMs > 0 && line.size() < rule.maxWaitingTotal && line.sizeOf(request.user) < rule.maxWaiting)
        return wait(needs, request, signal, onWaiting);
      throw exceeded(needs, null);
    },
    inFlight: () => held,
    waiting: () => line.size(),
    close() {
      closed = true;
      for (const reject of rejectors) reject(new AppError("shutting_down", { retryAfterSeconds: 1 }));
    },
  };
}

interface MemoryWaiter extends Waiter {
  grant(permit: Permit): void;
}

interface PermitOwner {
  move(permit: MemoryPermit, to: PermitScope): boolean;
  release(permit: MemoryPermit): void;
}

/** A class because one is made for each request. */
class MemoryPermit implements Permit {
  readonly userScope: Scope | null;
  readonly scopes: readonly Scope[];
  /** Its place at a provider. */
  place: Scope | null;
  #owner: PermitOwner | null;

  constructor(owner: PermitOwner, userScope: Scope | null, scopes: readonly Scope[], place: Scope | null) {
    this.#owner = owner;
    this.userScope = userScope;
    this.scopes = scopes;
    this.place = place;
  }

  get provider(): string | null {
    return this.place?.key ?? null;
  }

  move(to: PermitScope): boolean {
    if (this.place?.key === to.key) return true;
    return this.#owner?.move(this, to) ?? false;
  }

  release(): void {
    const owner = this.#owner;
    this.#owner = null;
    owner?.release(this);
  }
}

/** Stands for a change that concerns no user's cap. */
const anyScope = { kind: "process", key: "" } as const;

function needsOf(
  asked: readonly PermitScope[],
  providers: readonly PermitScope[],
  scopeOf: (scope: PermitScope) => Scope,
): Needs {
  let userScope: Scope | null = null;
  let scopes: Scope[] | undefined;
  for (const scope of asked) {
    if (scope.kind === "user") userScope = scopeOf(scope);
    else (scopes ??= []).push(scopeOf(scope));
  }
  return { userScope, scopes: scopes ?? none, providers: providers.length === 0 ? none : providers.map(scopeOf) };
}

/** The refusal, which names the first scope without room but never whose it is. */
function exceeded({ userScope, scopes, providers }: Needs, expectedMs: number | null): AppError {
  const isFull = (scope: Scope): boolean => scope.held >= scope.max;
  const all = [...(userScope === null ? [] : [userScope]), ...scopes];
  const full = all.find(isFull) ?? providers.find(isFull);
  return concurrencyExceeded(full, expectedMs);
}
