import { randomBytes } from "node:crypto";
import { AppError } from "../../errors.ts";
import { ClientDisconnectedError, type DisconnectSignal } from "../../lib/disconnect-signal.ts";
import type { Redis } from "../../lib/redis/redis.ts";
import { SwapRemoveSet } from "../../lib/swap-remove-set.ts";
import type { ConcurrencyLimiter, Permit, PermitRequest, PermitScope, Waiting } from "../concurrency.ts";
import { concurrencyExceeded, type QueueRule } from "../permit-rules.ts";
import {
  allPlaces,
  type Blocked,
  createPermitCalls,
  type Needs,
  type PermitCalls,
  type Places,
  scopeName,
} from "./permit-calls.ts";
import { createWaitingQueues, type Waiter, type WaitingQueue } from "./waiting-queues.ts";
import { waitForPermit } from "../wait-for-permit.ts";

/** A concurrency limiter whose rule can be changed while it runs. */
export interface RedisConcurrency extends ConcurrencyLimiter {
  /** Uses another rule from now on. Permits stay valid, and requests in the queue wait as long as they were to. */
  configure(rule: QueueRule): void;
  /** Renews this process's permits. What Redis has lost comes back. */
  renew(): Promise<void>;
}

export interface RedisConcurrencyOptions {
  readonly redis: Redis;
  readonly rule: QueueRule;
  /** How long the permits of a process that has died stay taken, in ms. Renewed three times in that time. */
  readonly leaseMs: number;
  /** Monotonic ms, for the expected waits. */
  readonly now: () => number;
}

/** How often those who wait ask again although nobody has told them that there is room, in ms. */
const pollMs = 100;
/** For so many scopes in turn. */
const pollScopes = 32;
/** What could not be given back and is tried again: so many each time, and so many at most. Others end with their lease. */
const retried = 16;
const maxUnreleased = 10_000;
const processScope = "process/";

/**
 * Keeps the permits in Redis, for all processes together; only the cap of kind `process` counts those of this one.
 *
 * Requests that wait do so here, by user and by what they need; in Redis each such queue is one entry in the lines of
 * the scopes that keep it out. A place that becomes free goes to the entry that is first in line, wherever it waits:
 * users take turns by their weights, over all processes. Of one user's requests for the same those of one process go in
 * order of arrival, and processes take turns. A process that has died loses its permits with their lease, and its
 * entries as soon as they would keep others waiting.
 */
export function createRedisConcurrency(options: RedisConcurrencyOptions): RedisConcurrency {
  const { redis, leaseMs, now } = options;
  let rule = options.rule;
  const process = randomBytes(6).toString("hex");
  const calls: PermitCalls = createPermitCalls(redis, process, leaseMs);
  const queues = createWaitingQueues(process, now);
  const held = new SwapRemoveSet<RedisPermit>();
  const rejectors = new Set<(reason: Error) => void>();
  /** Permits whose release has failed. */
  const unreleased = new Set<Places>();
  /** Queues that Redis could not be asked for, and queues that it could not be told the end of. */
  const failed = new Set<WaitingQueue>();
  const leaving = new Set<WaitingQueue>();
  const serving = new Set<string>();
  const again = new Set<string>();
  let ids = 0;
  /** Places of this process: of permits, and of attempts that may become some. */
  let inUse = 0;
  let closed = false;

  const newId = (): string => `${process}:${(++ids).toString(36)}`;

  const owner: PermitOwner = {
    async move(places, to) {
      try {
        return await calls.move(places, to);
      } catch (error) {
        // It may have a place there, which nobody would release: the request ends with this.
        giveBack({ id: places.id, own: null, shared: [to], provider: null }).catch(() => undefined);
        throw error;
      }
    },
    async release(permit) {
      held.delete(permit);
      leaveProcess();
      await giveBack(permit.places);
    },
  };

  function newPermit(places: Places): RedisPermit {
    const permit = new RedisPermit(owner, places);
    held.add(permit);
    return permit;
  }

  function enterProcess(cap: PermitScope | null): boolean {
    if (cap !== null && inUse >= cap.max) return false;
    inUse++;
    return true;
  }

  function leaveProcess(): void {
    inUse--;
    if (queues.hasBlocked(processScope)) serve(processScope);
  }

  /** Takes places, unless the process itself is full. */
  async function tryTake(
    cap: PermitScope | null,
    needs: Needs,
    take: (id: string) => Promise<Places | Blocked>,
  ): Promise<RedisPermit | Blocked> {
    if (!enterProcess(cap)) return { scopes: cap === null ? [] : [cap], ahead: 0 };
    const id = newId();
    try {
      const taken = await take(id);
      if ("id" in taken) return newPermit(taken);
      leaveProcess();
      return taken;
    } catch (error) {
      // Whether anything was taken is not known.
      giveBack(allPlaces(needs, id)).catch(() => undefined);
      leaveProcess();
      throw error;
    }
  }

  /** Releases places; where that fails, that is tried again. */
  async function giveBack(places: Places): Promise<void> {
    try {
      await calls.release(places);
      endIfIdle();
    } catch (error) {
      if (unreleased.size < maxUnreleased) unreleased.add(places);
      throw error;
    }
  }

  /**
   * Grants permits to the requests of a queue while there is room: Redis knows whose turn it is, among all that wait.
   * Never rejects.
   */
  async function attempt(queue: WaitingQueue): Promise<void> {
    if (queue.isTrying) return;
    queue.isTrying = true;
    try {
      for (let goesOn = queue.waiters.size > 0; goesOn;) {
        queue.mayBeInLine = true;
        const taken = await tryTake(queue.process, queue.needs, (id) => calls.takeInTurn(queue.needs, id, queue));
        if ("scopes" in taken) {
          queues.block(queue, taken.scopes, taken.ahead);
          break;
        }
        queue.mayBeInLine = false;
        const waiter = queues.shift(queue);
        if (waiter === undefined) await taken.release();
        else waiter.grant(taken);
        // Only this process knows whose turn it is by its own cap.
        goesOn = queue.waiters.size > 0 && !queues.hasBlocked(processScope);
      }
    } catch {
      // Redis is away: those who wait are served when it is back, or have waited too long.
      failed.add(queue);
    }
    queue.isTrying = false;
    if (queue.waiters.size === 0) forget(queue);
  }

  /** Forgets a queue that has no requests any more, here and in Redis: there it would keep others waiting. */
  function forget(queue: WaitingQueue): void {
    queues.drop(queue);
    failed.delete(queue);
    if (queue.mayBeInLine) leave(queue);
  }

  function leave(queue: WaitingQueue): void {
    leaving.delete(queue);
    calls.leave(queue.needs, queue).then(endIfIdle, () => {
      if (leaving.size < maxUnreleased) leaving.add(queue);
    });
  }

  /** Grants permits to those who wait for a scope, in order, until it has no more room for them. */
  function serve(name: string): void {
    if (serving.has(name)) {
      again.add(name);
      return;
    }
    serving.add(name);
    void serveAll(name).finally(() => serving.delete(name));
  }

  async function serveAll(name: string): Promise<void> {
    do {
      again.delete(name);
      for (const queue of queues.blockedOn(name)) {
        await attempt(queue);
        if (queue.waiters.size > 0 && queue.blocked.some((scope) => scopeName(scope) === name)) break;
      }
    } while (again.has(name));
  }

  redis.onChange("wake", (key) => {
    // Without a key, changes may have been missed: all ask again, some at a time.
    const name = key?.slice(key.indexOf(":wake:") + ":wake:".length);
    if (name !== undefined && queues.hasBlocked(name)) serve(name);
  });

  function wait(
    request: PermitRequest,
    queueOf: (waiter: Waiter) => WaitingQueue,
    signal: DisconnectSignal,
    onWaiting: ((now: () => Waiting) => void) | undefined,
  ): Promise<Permit> {
    return waitForPermit({
      request,
      signal,
      rejectors,
      maxWaitMs: rule.maxWaitMs,
      join(grant) {
        const waiter: Waiter = { grant };
        const queue = queueOf(waiter);
        const place = (): number => queue.ahead + 1 + Math.max(0, [...queue.waiters].indexOf(waiter));
        const expectedMs = (): number | null => (queue.grants < 2 ? null : queue.meanMs * place());
        onWaiting?.(() => ({ place: place(), expectedMs: expectedMs() }));
        // It enters the lines by this, and gets what has become free since it was refused.
        void attempt(queue);
        return {
          exceeded: () => concurrencyExceeded(queue.blocked[0], expectedMs()),
          useCap(scope) {
            // It is used by the next poll.
            useCap(queue, scope);
          },
          leave() {
            if (queues.leave(queue, waiter) && queue.waiters.size === 0 && !queue.isTrying) forget(queue);
          },
        };
      },
    });
  }

  function shuttingDown(): AppError {
    return new AppError("shutting_down", { retryAfterSeconds: 1 });
  }

  /** Throws if the request has no use for a permit, or gets none. */
  function checkIn(signal: DisconnectSignal): void {
    if (closed) throw shuttingDown();
    if (isGone(signal)) throw new ClientDisconnectedError();
  }

  const polling = setInterval(poll, pollMs).unref();
  const renewing = setInterval(() => {
    renew().catch(() => undefined);
  }, leaseMs / 3).unref();

  function poll(): void {
    for (const name of queues.nextScopes(pollScopes)) if (!serving.has(name)) serve(name);
    for (const queue of failed) {
      failed.delete(queue);
      void attempt(queue);
    }
    for (const queue of [...leaving].slice(0, retried)) leave(queue);
    for (const places of [...unreleased].slice(0, retried)) {
      unreleased.delete(places);
      giveBack(places).catch(() => undefined);
    }
  }

  async function renew(): Promise<void> {
    const all = held.items().map(({ places }) => places);
    if (all.length > 0) await calls.renew(all);
  }

  function endIfIdle(): void {
    if (!closed || held.size > 0 || unreleased.size + leaving.size > 0) return;
    clearInterval(polling);
    clearInterval(renewing);
  }

  return {
    configure(next) {
      rule = next;
    },
    renew,
    async acquire(request, signal, onWaiting) {
      checkIn(signal);
      const { needs, process: cap, key } = needsOf(request);
      // Who needs the same as others that wait already comes after them.
      let full = queues.find(key)?.blocked;
      if (full === undefined) {
        const taken = await tryTake(cap, needs, (id) => calls.take(needs, id));
        if (!("scopes" in taken)) {
          if (!isGone(signal)) return taken;
          await taken.release();
          throw new ClientDisconnectedError();
        }
        full = taken.scopes;
        checkIn(signal);
      }
      const mayWait =
        rule.maxWaitMs > 0 && queues.size() < rule.maxWaitingTotal && queues.sizeOf(request.user) < rule.maxWaiting;
      if (!mayWait) throw concurrencyExceeded(full[0], null);
      return wait(request, (waiter) => queues.join(key, needs, cap, waiter), signal, onWaiting);
    },
    inFlight: () => held.size,
    waiting: () => queues.size(),
    close() {
      closed = true;
      for (const reject of rejectors) reject(shuttingDown());
      endIfIdle();
    },
  };
}

interface PermitOwner {
  move(places: Places, to: PermitScope): Promise<boolean>;
  release(permit: RedisPermit): Promise<void>;
}

/** A class because one is made for each request. */
class RedisPermit implements Permit {
  readonly places: Places;
  slot = -1;
  #owner: PermitOwner | null;

  constructor(owner: PermitOwner, places: Places) {
    this.#owner = owner;
    this.places = places;
  }

  get provider(): string | null {
    return this.places.provider?.key ?? null;
  }

  async move(to: PermitScope): Promise<boolean> {
    if (this.places.provider?.key === to.key) return true;
    if (this.#owner === null || !(await this.#owner.move(this.places, to))) return false;
    this.places.provider = to;
    return true;
  }

  async release(): Promise<void> {
    const owner = this.#owner;
    this.#owner = null;
    await owner?.release(this);
  }
}

/** What a request needs, and a key that it shares with those of its user that need the same. */
function needsOf({ user, weight, scopes, providers }: PermitRequest) {
  let own: PermitScope | null = null;
  let process: PermitScope | null = null;
  const shared: PermitScope[] = [];
  for (const scope of scopes) {
    if (scope.kind === "user") own = scope;
    else if (scope.kind === "process") process = scope;
    else shared.push(scope);
  }
  const needs: Needs = { user, weight, own, shared, providers };
  const key = [user, own?.key ?? "", ...shared.map(scopeName), "", ...providers.map(scopeName)].join("\n");
  return { needs, process, key };
}

/**
 * Replaces a cap of a queue. One that was removed is a large one: the queue is in the lines of its scopes already. What had
 * none when the queue began keeps none: it is in no line of that.
 */
function useCap(queue: WaitingQueue, { kind, key, max }: PermitScope): void {
  const withCap = (scope: PermitScope): PermitScope =>
    scope.kind === kind && scope.key === key && scope.max !== Infinity
      ? { ...scope, max: Math.min(max, Number.MAX_SAFE_INTEGER) }
      : scope;
  const { own, shared, providers } = queue.needs;
  queue.process = queue.process === null ? null : withCap(queue.process);
  queue.needs = {
    ...queue.needs,
    own: own === null ? null : withCap(own),
    shared: shared.map(withCap),
    providers: providers.map(withCap),
  };
}

/** Asked again after each wait. */
function isGone({ gone }: DisconnectSignal): boolean {
  return gone;
}
