import { RedisUnavailableError } from "../../lib/redis/redis.ts";
import type { ConcurrencyLimiter, Permit, PermitRequest, PermitScope } from "../concurrency.ts";
import { createMemoryConcurrency } from "../memory/memory-concurrency.ts";
import { createMemoryRateLimiter } from "../memory/memory-rate-limiter.ts";
import type { QueueRule } from "../permit-rules.ts";
import type { RateLimiter } from "../rate-limiter.ts";
import type { RateRule } from "../rate-rules.ts";
import type { Clock } from "../../lib/clock.ts";

/** When a process keeps its limits alone, and which part of them. */
export interface AwayShare {
  /** Whether requests are served without Redis now. */
  readonly isServing: () => boolean;
  /** How many processes there were when Redis was last heard of, at least 1. */
  readonly processes: () => number;
}

/** Rules that can be changed while the limiter runs. */
interface Configurable<Rules> {
  configure(rules: Rules): void;
}

/**
 * Permits of all processes while Redis answers; while it is away, this process's share of each cap, at least 1. Requests
 * that run already, with a permit of Redis, are not counted then. Those that wait for Redis go on waiting.
 */
export function createConcurrencyWithoutRedis(
  shared: ConcurrencyLimiter & Configurable<QueueRule>,
  rule: QueueRule,
  { isServing, processes }: AwayShare,
  now: () => number,
): ConcurrencyLimiter & Configurable<QueueRule> {
  const own = createMemoryConcurrency({ rule, now });

  function shareOf(scope: PermitScope): PermitScope {
    // The cap of this process is its own already.
    if (scope.kind === "process" || scope.max === Infinity) return scope;
    return { ...scope, max: Math.max(1, Math.floor(scope.max / processes())) };
  }

  async function acquireOwn(...[request, ...others]: Parameters<ConcurrencyLimiter["acquire"]>): Promise<Permit> {
    const scopes = request.scopes.map(shareOf);
    const scaled: PermitRequest = { ...request, scopes, providers: request.providers.map(shareOf) };
    return new OwnPermit(await own.acquire(scaled, ...others), shareOf);
  }

  return {
    async acquire(...given) {
      if (isServing()) return acquireOwn(...given);
      try {
        return await shared.acquire(...given);
      } catch (error) {
        if (!(error instanceof RedisUnavailableError) || !isServing()) throw error;
        return acquireOwn(...given);
      }
    },
    inFlight: () => shared.inFlight() + own.inFlight(),
    waiting: () => shared.waiting() + own.waiting(),
    configure(next) {
      shared.configure(next);
      own.configure(next);
    },
    close() {
      shared.close();
      own.close();
    },
  };
}

/** A permit of this process alone, which moves within its share. */
class OwnPermit implements Permit {
  readonly #permit: Permit;
  readonly #shareOf: (scope: PermitScope) => PermitScope;

  constructor(permit: Permit, shareOf: (scope: PermitScope) => PermitScope) {
    this.#permit = permit;
    this.#shareOf = shareOf;
  }

  get provider(): string | null {
    return this.#permit.provider;
  }

  move(to: PermitScope): ReturnType<Permit["move"]> {
    return this.#permit.move(this.#shareOf(to));
  }

  release(): ReturnType<Permit["release"]> {
    return this.#permit.release();
  }
}

/** Rates over all processes while Redis answers; while it is away, this process's share of each rule, from full buckets. */
export function createRatesWithoutRedis(
  shared: RateLimiter & Configurable<readonly RateRule[]>,
  firstRules: readonly RateRule[],
  { isServing, processes }: AwayShare,
  clock: Clock,
): RateLimiter & Configurable<readonly RateRule[]> {
  let rules = firstRules;
  let scaledFor = 1;
  const own = createMemoryRateLimiter({ rules, clock });

  /** Of this process, by the number of processes now. */
  function current(): RateLimiter {
    const count = processes();
    if (count !== scaledFor) {
      scaledFor = count;
      own.configure(rules.map((rule) => ruleShare(rule, count)));
    }
    return own;
  }

  async function withoutRedis<T>(ask: (limiter: RateLimiter) => T | Promise<T>): Promise<T> {
    if (isServing()) return ask(current());
    try {
      return await ask(shared);
    } catch (error) {
      if (!(error instanceof RedisUnavailableError) || !isServing()) throw error;
      return ask(current());
    }
  }

  return {
    take: (request) => withoutRedis((limiter) => limiter.take(request)),
    takeFreeDisconnect: (request) => withoutRedis((limiter) => limiter.takeFreeDisconnect(request)),
    rules: () => withoutRedis((limiter) => limiter.rules()),
    statesOf: (request) => withoutRedis((limiter) => limiter.statesOf(request)),
    configure(next) {
      rules = next;
      shared.configure(next);
      own.configure(rules.map((rule) => ruleShare(rule, scaledFor)));
    },
  };
}

/** Longest window of a rule, in ms. */
const longestMs = 1e12;

/** A rule of which so many processes together allow what it says. */
function ruleShare(rule: RateRule, processes: number): RateRule {
  const { perMs, burst } = rule;
  return { ...rule, perMs: Math.min(longestMs, perMs * processes), burst: Math.max(1, burst / processes) };
}
