import { type Heaped, IndexedHeap } from "../../lib/indexed-heap.ts";
import type { PermitKind } from "../concurrency.ts";

/** A cap in force, and how much of it is in use. */
export interface Scope {
  readonly kind: PermitKind;
  readonly key: string;
  max: number;
  held: number;
  /** Requests in the line that need a place here. */
  waiting: number;
  /** Whether one place is kept for the demand that has been passed over; see createFairLine. */
  reserved: boolean;
}

/** A request that waits. */
export interface Waiter {
  readonly user: string;
  readonly weight: number;
  /** The cap of its user; null: none. */
  readonly userScope: Scope | null;
  /** The other scopes that it needs, all of them, in the order of PermitKind. */
  readonly scopes: readonly Scope[];
  /** It needs one of these; empty: none. */
  readonly providers: readonly Scope[];
  /** Its place as last counted; 0: not yet. Only for use by the line, as all that follows. */
  place: number;
  /** When it joined, as a number that grows. */
  arrival: number;
  /** Where it waits; null: it doesn't. */
  queue: Queue | null;
}

/** What some requests need apart from a place of their user's, and all who need just that. */
interface Demand {
  readonly key: string;
  readonly scopes: readonly Scope[];
  readonly providers: readonly Scope[];
  /** The queues of users who have room under their own cap; the user whose turn it is first. */
  readonly ready: IndexedHeap<Queue>;
  size: number;
  /** Bits of the scopes that had room at some time since all had; see noteBlocked. */
  seen: number;
  /** How often all of its scopes have had room by turns, but not together. */
  misses: number;
  readonly pace: Pace;
  countedAt: number;
}

/** The requests of one user for one demand, the oldest first. */
interface Queue extends Heaped {
  readonly user: WaitingUser;
  readonly demand: Demand;
  readonly waiters: Set<Waiter>;
}

/** A user with requests in the line. */
interface WaitingUser {
  readonly name: string;
  weight: number;
  /** Lower is sooner. A new number is drawn when the user joins and at the end of each turn. */
  turn: number;
  /** Requests that may still be granted in this turn. */
  left: number;
  scope: Scope | null;
  readonly queues: Queue[];
  size: number;
  readonly pace: Pace;
}

/** How fast requests leave a line: the mean time between two grants, in ms, weighing the last ones most. */
interface Pace {
  grants: number;
  lastAt: number;
  meanMs: number;
}

/** The waiting line. */
export interface FairLine {
  /** Requests that wait. */
  size(): number;
  /** Requests of a user that wait. */
  sizeOf(user: string): number;
  join(waiter: Waiter): void;
  /** Removes a request; does nothing if it is not in the line. */
  leave(waiter: Waiter): void;
  /**
   * Removes and returns the request whose turn it is, among those for which there is room; undefined if there is none.
   * The caller takes the places before it calls again.
   */
  next(): Waiter | undefined;
  /** Tells the line that a user has come to, or below, the own cap. */
  userChanged(user: string): void;
  /** Whether a request that is not in the line could be granted now. */
  hasRoom(needs: Pick<Waiter, "userScope" | "scopes" | "providers">): boolean;
  /** The first provider with room; undefined if there is none. */
  providerWithRoom(providers: readonly Scope[]): Scope | undefined;
  /** 1: it is the next. Counted once a second, since a line may be long. */
  placeOf(waiter: Waiter): number;
  /** Time between two grants where a request waits, in ms; null before there were two. */
  intervalOf(waiter: Waiter): number | null;
}

/** So many misses, and a demand has a place kept in each of its scopes. */
const patience = 3;
/** How long counted places stay good, in ms. */
const countEveryMs = 1000;

/**
 * The order in which waiting requests are granted: round robin over the users, each of whom may have as many requests
 * granted in a turn as its weight says; the requests of one user go in order of arrival. A user for whose requests there
 * is no room keeps the turn, and others go first meanwhile.
 *
 * Requests are kept by what they need, so that finding the next one takes a look at each demand, not at each request.
 *
 * A request that needs places in several scopes could wait for ever while others take them by turns. Once that has
 * happened a few times to a demand, one place in each of its scopes is kept for it. That is done for one demand at a
 * time, so two can't wait for each other.
 *
 * @param now monotonic ms
 */
export function createFairLine(now: () => number): FairLine {
  const users = new Map<string, WaitingUser>();
  const demands = new Map<string, Demand>();
  let size = 0;
  let turns = 0;
  let arrivals = 0;
  let favoured: Demand | null = null;

  function room(scope: Scope, demand: Demand | null): boolean {
    return scope.held < scope.max - (scope.reserved && demand !== favoured ? 1 : 0);
  }

  function providerFor(providers: readonly Scope[], demand: Demand | null): Scope | undefined {
    return providers.find((scope) => room(scope, demand));
  }

  function demandOf({ scopes, providers }: Waiter): Demand {
    const key = [...scopes, null, ...providers].map((scope) => (scope === null ? "" : nameOf(scope))).join("\n");
    let demand = demands.get(key);
    if (demand === undefined) {
      const ready = new IndexedHeap<Queue>(isBefore);
      demand = {
        key,
        scopes,
        providers,
        ready,
        size: 0,
        seen: 0,
        misses: 0,
        pace: newPace(now()),
        countedAt: -Infinity,
      };
      demands.set(key, demand);
    }
    return demand;
  }

  function userOf({ user: name, weight, userScope }: Waiter): WaitingUser {
    let user = users.get(name);
    if (user === undefined) {
      user = { name, weight, turn: ++turns, left: weight, scope: null, queues: [], size: 0, pace: newPace(now()) };
      users.set(name, user);
    }
    user.weight = weight;
    user.scope = userScope;
    return user;
  }

  function hasOwnRoom({ scope }: WaitingUser): boolean {
    return scope === null || scope.held < scope.max;
  }

  /** Puts the queues of a user where they belong: among those that are ready, or out of them. */
  function place(user: WaitingUser): void {
    const isReady = hasOwnRoom(user);
    for (const queue of user.queues) {
      if (isReady) queue.demand.ready.put(queue);
      else queue.demand.ready.delete(queue);
    }
  }

  function remove(waiter: Waiter): void {
    const { queue } = waiter;
    if (queue === null) return;
    waiter.queue = null;
    const { user, demand } = queue;
    queue.waiters.delete(waiter);
    size -= 1;
    user.size -= 1;
    demand.size -= 1;
    for (const scope of scopesOf(waiter)) scope.waiting -= 1;
    if (queue.waiters.size === 0) {
      demand.ready.delete(queue);
      user.queues.splice(user.queues.indexOf(queue), 1);
    }
    if (user.size === 0) users.delete(user.name);
    if (demand.size === 0) demands.delete(demand.key);
    if (demand === favoured && demand.ready.first() === undefined) favour(null);
  }

  function favour(demand: Demand | null): void {
    for (const scope of needsOf(favoured)) scope.reserved = false;
    favoured = demand;
    for (const scope of needsOf(demand)) scope.reserved = true;
  }

  /** Whether there is room for a demand now. Notes what it lacks. */
  function fits(demand: Demand): boolean {
    const { scopes, providers } = demand;
    let seen = 0;
    for (let index = 0; index < scopes.length; index++) {
      const scope = scopes[index];
      if (scope !== undefined && room(scope, demand)) seen |= 1 << index;
    }
    if (providers.length === 0 || providerFor(providers, demand) !== undefined) seen |= 1 << scopes.length;
    const all = (2 << scopes.length) - 1;
    if (seen === all) return true;
    demand.seen |= seen;
    if (demand.seen === all) {
      demand.seen = 0;
      demand.misses += 1;
      if (demand.misses >= patience && favoured === null) favour(demand);
    }
    return false;
  }

  function endTurnIfUsed(user: WaitingUser): void {
    user.left -= 1;
    if (user.left > 0) return;
    user.turn = ++turns;
    user.left = user.weight;
  }

  /** Counts the places of all who wait for a demand and whose users have room, as if nobody came or left. */
  function count(demand: Demand): void {
    let place = 0;
    let round = [...demand.ready.items()]
      .sort((a, b) => a.user.turn - b.user.turn)
      .map(({ user, waiters }) => ({ of: user, most: user.left, waiters: waiters.values() }));
    while (round.length > 0) {
      round = round.filter((one) => {
        for (let granted = 0; granted < one.most; granted++) {
          const { value } = one.waiters.next();
          if (value === undefined) return false;
          value.place = ++place;
        }
        one.most = one.of.weight;
        return true;
      });
    }
  }

  return {
    size: () => size,
    sizeOf: (name) => users.get(name)?.size ?? 0,
    hasRoom({ userScope, scopes, providers }) {
      if (userScope !== null && !room(userScope, null)) return false;
      for (const scope of scopes) if (!room(scope, null)) return false;
      return providers.length === 0 || providerFor(providers, null) !== undefined;
    },
    providerWithRoom: (providers) => providerFor(providers, null),
    join(waiter) {
      const demand = demandOf(waiter);
      const user = userOf(waiter);
      let queue = user.queues.find((one) => one.demand === demand);
      if (queue === undefined) {
        queue = { user, demand, waiters: new Set(), heapIndex: -1 };
        user.queues.push(queue);
      }
      queue.waiters.add(waiter);
      waiter.queue = queue;
      waiter.arrival = ++arrivals;
      size += 1;
      user.size += 1;
      demand.size += 1;
      for (const scope of scopesOf(waiter)) scope.waiting += 1;
      place(user);
    },
    leave: remove,
    next() {
      let best: Queue | undefined;
      for (const demand of demands.values()) {
        const first = demand.ready.first();
        if (first !== undefined && fits(demand) && (best === undefined || isSooner(first, best))) best = first;
      }
      const waiter = best === undefined ? undefined : oldest(best);
      if (best === undefined || waiter === undefined) return undefined;
      const { user, demand } = best;
      remove(waiter);
      if (demand === favoured) favour(null);
      demand.seen = 0;
      demand.misses = 0;
      const at = now();
      step(demand.pace, at);
      step(user.pace, at);
      endTurnIfUsed(user);
      place(user);
      return waiter;
    },
    userChanged(name) {
      const user = users.get(name);
      if (user === undefined) return;
      place(user);
      if (favoured !== null && favoured.ready.first() === undefined) favour(null);
    },
    placeOf(waiter) {
      const { queue } = waiter;
      if (queue === null) return 1;
      if (queue.heapIndex < 0) return 1 + [...queue.waiters].indexOf(waiter);
      const { demand } = queue;
      const at = now();
      if (waiter.place === 0 || at - demand.countedAt >= countEveryMs) {
        demand.countedAt = at;
        count(demand);
      }
      return waiter.place;
    },
    intervalOf({ queue }) {
      if (queue === null) return null;
      const { grants, meanMs } = queue.heapIndex < 0 ? queue.user.pace : queue.demand.pace;
      return grants < 2 ? null : meanMs;
    },
  };
}

/** All scopes in which a request may take a place. */
function* scopesOf({ userScope, scopes, providers }: Waiter): Iterable<Scope> {
  if (userScope !== null) yield userScope;
  yield* scopes;
  yield* providers;
}

function needsOf(demand: Demand | null): readonly Scope[] {
  return demand === null ? [] : [...demand.scopes, ...demand.providers];
}

function nameOf({ kind, key }: Scope): string {
  return `${kind}:${key}`;
}

function isBefore(a: Queue, b: Queue): boolean {
  return a.user.turn < b.user.turn;
}

/** As isBefore; of two queues of one user, the one whose first request is older. */
function isSooner(a: Queue, b: Queue): boolean {
  return a.user === b.user ? (oldest(a)?.arrival ?? 0) < (oldest(b)?.arrival ?? 0) : isBefore(a, b);
}

function oldest({ waiters }: Queue): Waiter | undefined {
  for (const waiter of waiters) return waiter;
  return undefined;
}

function newPace(lastAt: number): Pace {
  return { grants: 0, lastAt, meanMs: 0 };
}

function step(pace: Pace, at: number): void {
  const ms = at - pace.lastAt;
  pace.lastAt = at;
  pace.grants += 1;
  pace.meanMs = pace.grants === 1 ? ms : pace.meanMs + (ms - pace.meanMs) / Math.min(pace.grants, 32);
}
