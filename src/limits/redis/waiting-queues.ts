import type { Permit, PermitScope } from "../concurrency.ts";
import { type Entry, type Needs, scopeName } from "./permit-calls.ts";

/** A request that waits. */
export interface Waiter {
  grant(permit: Permit): void;
}

/** The requests of one user on this process that need the same, the oldest first. In Redis they wait as one entry. */
export interface WaitingQueue extends Entry {
  readonly key: string;
  /** As the newest of them says it. */
  needs: Needs;
  /** The cap of this process; null: none. */
  process: PermitScope | null;
  readonly waiters: Set<Waiter>;
  /** What kept it out when it was last tried. */
  blocked: readonly PermitScope[];
  /** Entries of all processes that were before it then. */
  ahead: number;
  /** How often it was kept out by another scope than the time before. */
  misses: number;
  isTrying: boolean;
  /** Whether it may be in a line of Redis. */
  mayBeInLine: boolean;
  /** Grows with each turn that is over: the order among those that have no rank in Redis. */
  turn: number;
  /** For expected waits: grants, when the last one was, and the mean time between two, in ms. */
  grants: number;
  grantedAt: number;
  meanMs: number;
}

/** The queues of this process, by what they wait for. */
export interface WaitingQueues {
  size(): number;
  sizeOf(user: string): number;
  find(key: string): WaitingQueue | undefined;
  /** The queue of a key, new if there is none. */
  join(key: string, needs: Needs, process: PermitScope | null, waiter: Waiter): WaitingQueue;
  /** Takes a request out; false if it is not there any more. */
  leave(queue: WaitingQueue, waiter: Waiter): boolean;
  /** Takes out the request whose turn it is. */
  shift(queue: WaitingQueue): Waiter | undefined;
  /** Forgets a queue without requests. */
  drop(queue: WaitingQueue): void;
  block(queue: WaitingQueue, scopes: readonly PermitScope[], ahead: number): void;
  /** The queues that wait for a scope, the first in turn first. */
  blockedOn(name: string): readonly WaitingQueue[];
  hasBlocked(name: string): boolean;
  /** The next scopes that somebody waits for, so many at most; each call goes on where the last one ended. */
  nextScopes(most: number): readonly string[];
}

/** So many misses, and places are kept for a queue in all of its scopes. */
const patience = 3;

/**
 * @param process the name of this process among all
 * @param now monotonic ms
 */
export function createWaitingQueues(process: string, now: () => number): WaitingQueues {
  const queues = new Map<string, WaitingQueue>();
  const byScope = new Map<string, Set<WaitingQueue>>();
  const byUser = new Map<string, number>();
  let size = 0;
  let turns = 0;
  /** One at a time, so that no more than one place of a scope is kept by this process. */
  let patient: WaitingQueue | null = null;

  function count(user: string, change: number): void {
    size += change;
    const next = (byUser.get(user) ?? 0) + change;
    if (next === 0) byUser.delete(user);
    else byUser.set(user, next);
  }

  function unblock(queue: WaitingQueue): void {
    for (const scope of queue.blocked) {
      const name = scopeName(scope);
      const some = byScope.get(name);
      some?.delete(queue);
      if (some?.size === 0) byScope.delete(name);
    }
    queue.blocked = [];
  }

  function rankFor(queue: WaitingQueue, name: string): number {
    const rank = name.startsWith("process/") ? 0 : name.startsWith("user/") ? queue.ownRank : queue.sharedRank;
    return rank === 0 ? Infinity : rank;
  }

  function calm(queue: WaitingQueue): void {
    queue.misses = 0;
    queue.isPatient = false;
    if (patient === queue) patient = null;
  }

  return {
    size: () => size,
    sizeOf: (user) => byUser.get(user) ?? 0,
    find: (key) => queues.get(key),
    join(key, needs, ofProcess, waiter) {
      let queue = queues.get(key);
      if (queue === undefined) {
        queue = {
          key,
          needs,
          process: ofProcess,
          waiters: new Set(),
          blocked: [],
          ahead: 0,
          misses: 0,
          isTrying: false,
          mayBeInLine: false,
          name: `${process}:${(++turns).toString(36)}`,
          ownRank: 0,
          sharedRank: 0,
          isInShared: false,
          isPatient: false,
          turn: turns,
          grants: 0,
          grantedAt: now(),
          meanMs: 0,
        };
        queues.set(key, queue);
      }
      queue.needs = needs;
      queue.process = ofProcess;
      queue.waiters.add(waiter);
      count(needs.user, 1);
      return queue;
    },
    leave(queue, waiter) {
      if (!queue.waiters.delete(waiter)) return false;
      count(queue.needs.user, -1);
      return true;
    },
    shift(queue) {
      const [first] = queue.waiters;
      if (first === undefined) return undefined;
      queue.waiters.delete(first);
      count(queue.needs.user, -1);
      const at = now();
      const ms = at - queue.grantedAt;
      queue.grantedAt = at;
      queue.grants += 1;
      queue.meanMs += (ms - queue.meanMs) / Math.min(queue.grants, 32);
      queue.turn = ++turns;
      calm(queue);
      return first;
    },
    drop(queue) {
      unblock(queue);
      calm(queue);
      if (queues.get(queue.key) === queue) queues.delete(queue.key);
    },
    block(queue, scopes, ahead) {
      const had = queue.blocked.map(scopeName);
      const has = scopes.map(scopeName);
      if (had.length > 0 && !had.some((name) => has.includes(name))) queue.misses += 1;
      if (queue.misses >= patience && patient === null) {
        patient = queue;
        queue.isPatient = true;
      }
      unblock(queue);
      queue.blocked = scopes;
      queue.ahead = ahead;
      for (const name of has) {
        const some = byScope.get(name);
        if (some === undefined) byScope.set(name, new Set([queue]));
        else some.add(queue);
      }
    },
    blockedOn: (name) =>
      [...(byScope.get(name) ?? [])].sort((a, b) => {
        const [left, right] = [rankFor(a, name), rankFor(b, name)];
        if (left !== right) return left - right;
        // As in Redis, where entries of equal rank are in the order of their names: who asks in another order is refused
        // for the first, and never asks for the one whose turn it is.
        return left === Infinity ? a.turn - b.turn : a.name < b.name ? -1 : 1;
      }),
    hasBlocked: (name) => byScope.has(name),
    nextScopes(most) {
      const names: string[] = [];
      for (const [name, some] of byScope) {
        if (names.length === most) break;
        names.push(name);
        // Behind all others.
        byScope.delete(name);
        byScope.set(name, some);
        if (names.length >= byScope.size) break;
      }
      return names;
    },
  };
}
