import { Breaker, type BreakerRule, type BreakerState, refused } from "./breaker.ts";
import type { UpstreamError } from "./upstream-error.ts";

/** How long to wait after a rate limit without Retry-After, in ms. */
const defaultLimitMs = 1000;
/** Longest Retry-After that is respected, in ms: a wrong header must not disable a provider for ever. */
const longestLimitMs = 600_000;
/** Most models remembered at once. Clients choose the names if a provider serves globs. */
const maxModels = 1000;
/** Models with an open circuit or a limit that are passed over to forget another. */
const maxKeptAtOnce = 20;
/** Models that must be rate limited at the same time, for several users, before the whole account is. */
const modelsOfAnAccount = 2;

/** How long a response proves that the account works, whichever circuits are open; in ms. */
const recentMs = 60_000;

/** The model of a request, and its user. */
export interface Target {
  /** The provider's name for it. */
  readonly model: string;
  readonly user: string;
}

/** A permit to send one request; to be passed to `responded`, and to one of `failed`, `completed` and `abandoned`. */
export interface Pass extends Target {
  readonly accountPermit: number;
  readonly modelPermit: number;
}

/** A model whose circuit is not closed, or that is rate limited. */
export interface ModelCircuit {
  readonly model: string;
  readonly breaker: BreakerState;
  /** ms until the provider's rate limit ends; 0 if there is none. */
  readonly limitedForMs: number;
}

interface ModelHealth {
  readonly breaker: Breaker;
  /** End of the provider's rate limit. */
  limitedUntil: number;
  /** The user whose request was rate limited. */
  limitedBy: string;
}

/**
 * Whether an account of a provider may be sent requests for a model, and its recent results. Failed connections and a
 * rejected key concern the account; all other failures, and Retry-After, concern the model of the request. Everything
 * that is remembered between requests is here. Times are in ms of a monotonic clock.
 */
export class ProviderHealth {
  readonly stats = new ProviderStats();
  readonly retryBudget = new RetryBudget();
  /** The operator has taken it out of rotation: running requests continue, new ones are not sent. */
  drained = false;
  /** Whether a request with this key has succeeded since the start. */
  keyWorked = false;
  /** Monotonic ms of the last response; -Infinity before the first. */
  lastResponseAt = -Infinity;
  /** Called when a circuit opens: that of a model, or of the whole account (null); and for how long, in ms. */
  onOpen: ((model: string | null, openMs: number) => void) | undefined;
  #rule: BreakerRule;
  readonly #account: Breaker;
  /** Several models were rate limited at once: nothing is sent until then. */
  #limitedUntil = 0;
  /** By the name of the model, the least recently added first. */
  readonly #models = new Map<string, ModelHealth>();

  constructor(rule: BreakerRule) {
    this.#rule = rule;
    this.#account = new Breaker(rule);
  }

  /** Uses another rule from now on. Open circuits stay open, for as long as the new rule says. */
  configure(rule: BreakerRule): void {
    this.#rule = rule;
    this.#account.configure(rule);
    for (const { breaker } of this.#models.values()) breaker.configure(rule);
  }

  /** Admits a request; null if it must not be sent. */
  enter(target: Target, now: number): Pass | null {
    if (this.drained || this.limitedMs(target.model, now) > 0) return null;
    return this.#enter(target, (breaker) => breaker.enter(now));
  }

  /** Like enter(), for when no other provider is left: open circuits admit a growing share of requests as trials. */
  enterAsTrial(target: Target, now: number): Pass | null {
    if (this.drained || this.limitedMs(target.model, now) > 0) return null;
    return this.#enter(target, (breaker) => breaker.enterAsTrial(now));
  }

  /** ms until the circuits admit a request for the model, as far as is known; 0 if they do now. */
  circuitMs(model: string, now: number): number {
    return Math.max(this.#account.waitMs(now), this.#models.get(model)?.breaker.waitMs(now) ?? 0);
  }

  /** ms until the provider's rate limit for the model ends; 0 if there is none. */
  limitedMs(model: string, now: number): number {
    return Math.max(0, this.#limitedUntil - now, (this.#models.get(model)?.limitedUntil ?? 0) - now);
  }

  /** The circuit of the whole account. */
  accountState(now: number): BreakerState {
    return this.#account.state(now);
  }

  /** ms until the rate limit of the account ends; 0 if only single models are limited. */
  accountLimitedMs(now: number): number {
    return Math.max(0, this.#limitedUntil - now);
  }

  /** The models whose circuit is not closed, or that are rate limited; at most 100. */
  circuits(now: number): readonly ModelCircuit[] {
    const found: ModelCircuit[] = [];
    for (const [model, { breaker, limitedUntil }] of this.#models) {
      const one = { model, breaker: breaker.state(now), limitedForMs: Math.max(0, Math.ceil(limitedUntil - now)) };
      if (one.breaker !== "closed" || one.limitedForMs > 0) found.push(one);
      if (found.length === 100) break;
    }
    return found;
  }

  /** Whether requests show that it works: one succeeded after `since`, and no open circuit contradicts. */
  isServing(since: number, now: number): boolean {
    if (this.lastResponseAt <= since || this.#account.state(now) !== "closed") return false;
    return now - this.lastResponseAt < recentMs || this.circuits(now).every(({ breaker }) => breaker === "closed");
  }

  /** Another process has seen a model fail, or the whole account (null): the next request is a probe. */
  suspect(model: string | null, now: number): void {
    if (model === null) this.#account.suspect(now);
    else this.#modelOf(model, now).breaker.suspect(now);
  }

  /** The operator puts it back into rotation: circuits and rate limits are reset. */
  restore(): void {
    this.drained = false;
    this.forgetFailures();
  }

  /** Resets circuits and rate limits, but not the operator's drain. */
  forgetFailures(): void {
    this.#limitedUntil = 0;
    this.#account.close();
    this.#models.clear();
  }

  /** A request is sent. */
  sent(): void {
    this.stats.inFlight++;
    this.stats.asked++;
  }

  /** Its first data event has arrived; `failed` may still follow. */
  responded({ model, accountPermit, modelPermit }: Pass, firstEventMs: number, now: number): void {
    this.keyWorked = true;
    this.lastResponseAt = now;
    this.#account.succeeded(accountPermit, now);
    this.#modelOf(model, now).breaker.succeeded(modelPermit, now);
    this.stats.recordFirstEvent(firstEventMs);
  }

  /** Its response is complete. */
  completed(): void {
    this.stats.inFlight--;
    this.stats.recordOutcome(false);
  }

  /** It failed, or its response broke off. */
  failed(pass: Pass, error: UpstreamError, now: number): void {
    const { kind, stage, retryAfterMs } = error.facts;
    const { model, user, accountPermit, modelPermit } = pass;
    const { countsAgainstProvider } = error.rule;
    this.stats.inFlight--;
    this.stats.recordOutcome(countsAgainstProvider);
    if (countsAgainstProvider && (retryAfterMs !== undefined || kind === "rate_limited")) {
      this.#limit(pass, now + Math.min(retryAfterMs ?? defaultLimitMs, longestLimitMs), now);
    }
    // A provider that rate limits us works, and its Retry-After needs no probe. The total time may have run out because
    // of other providers or a long response.
    const counts = countsAgainstProvider && kind !== "rate_limited" && stage !== "total";
    const ofAccount = stage === "connect" || kind === "key_refused" || kind === "no_balance";
    // A response that breaks off was counted as a success at its first event.
    const succeededBefore = stage === "streaming";
    const count = (breaker: Breaker, permit: number, of: string | null): void => {
      const wasClosed = breaker.state(now) === "closed";
      breaker.failed(permit, now, user, succeededBefore);
      if (wasClosed && breaker.state(now) !== "closed") this.onOpen?.(of, this.#rule.openMs);
    };
    if (counts && ofAccount) count(this.#account, accountPermit, null);
    else this.#account.abandoned(accountPermit);
    if (counts && !ofAccount) count(this.#modelOf(model, now).breaker, modelPermit, model);
    else this.#models.get(model)?.breaker.abandoned(modelPermit);
  }

  /** The proxy gave it up: the client has disconnected. */
  abandoned(pass: Pass): void {
    this.stats.inFlight--;
    this.giveBack(pass);
  }

  /** Nothing was sent after all. */
  giveBack({ model, accountPermit, modelPermit }: Pass): void {
    this.#account.abandoned(accountPermit);
    this.#models.get(model)?.breaker.abandoned(modelPermit);
  }

  #enter({ model, user }: Target, enter: (breaker: Breaker) => number): Pass | null {
    const accountPermit = enter(this.#account);
    if (accountPermit === refused) return null;
    const known = this.#models.get(model);
    const modelPermit = known === undefined ? 0 : enter(known.breaker);
    if (modelPermit !== refused) return { model, user, accountPermit, modelPermit };
    this.#account.abandoned(accountPermit);
    return null;
  }

  /** The later end counts: a response without Retry-After must not shorten the wait that another one set. */
  #limit({ model, user }: Target, until: number, now: number): void {
    const health = this.#modelOf(model, now);
    if (until > health.limitedUntil) {
      health.limitedUntil = until;
      health.limitedBy = user;
    }
    const limited = [...this.#models.values()].filter(({ limitedUntil }) => limitedUntil > now);
    // A single user may exhaust several models with separate limits.
    const users = new Set(limited.map(({ limitedBy }) => limitedBy));
    if (limited.length < modelsOfAnAccount || users.size < 2) return;
    this.#limitedUntil = Math.max(this.#limitedUntil, Math.min(...limited.map(({ limitedUntil }) => limitedUntil)));
  }

  #modelOf(model: string, now: number): ModelHealth {
    let health = this.#models.get(model);
    if (health === undefined) {
      if (this.#models.size >= maxModels) this.#forgetOne(now);
      this.#models.set(model, (health = { breaker: new Breaker(this.#rule), limitedUntil: 0, limitedBy: "" }));
    }
    return health;
  }

  /**
   * Forgets the oldest model. Those with an open circuit or a limit go behind the others first, some at a time: names
   * that a client makes up must not push them out.
   */
  #forgetOne(now: number): void {
    for (let looked = 0; looked < maxKeptAtOnce; looked++) {
      const [first] = this.#models;
      if (first === undefined) return;
      const [model, health] = first;
      this.#models.delete(model);
      if (health.breaker.state(now) === "closed" && health.limitedUntil <= now) return;
      this.#models.set(model, health);
    }
    const [oldest] = this.#models.keys();
    if (oldest !== undefined) this.#models.delete(oldest);
  }
}

/** Part of a retry that each first attempt earns: there is at most one retry for every five. */
const share = 0.2;
/** Most retries that can be saved up, and the number at the start, so that requests can be retried at low traffic. */
const reserve = 10;

/**
 * Limits how often requests are retried at the same provider. Without a limit every request to a dead provider would
 * become several, at the worst time.
 */
export class RetryBudget {
  #saved = reserve;

  /** A request makes its first attempt. */
  earn(): void {
    if (this.#saved < reserve) this.#saved = Math.min(reserve, this.#saved + share);
  }

  /** Takes a retry if one is left. */
  tryTake(): boolean {
    if (this.#saved < 1) return false;
    this.#saved--;
    return true;
  }
}

/** How many of the last responses are remembered. */
const remembered = 256;

/** Times to the first data event, in ms. */
export interface Latencies {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
}

/** Recent results of a provider: two ring buffers and a few counts, so that a response costs a few assignments. */
export class ProviderStats {
  /** Requests in progress. */
  inFlight = 0;
  /** Requests ever sent. */
  asked = 0;
  /** Of these, second or later attempts for the same request. */
  retries = 0;
  /** Failed requests that counted against the provider. */
  failed = 0;
  readonly #firstEventMs = new Float64Array(remembered);
  #responses = 0;
  readonly #outcomes = new Uint8Array(remembered);
  #outcomeCount = 0;

  /** @param firstEventMs from the request to its first data event */
  recordFirstEvent(firstEventMs: number): void {
    this.#firstEventMs[this.#responses++ % remembered] = firstEventMs;
  }

  /** One more request is over. */
  recordOutcome(failed: boolean): void {
    if (failed) this.failed++;
    this.#outcomes[this.#outcomeCount++ % remembered] = failed ? 1 : 0;
  }

  /** The last requests: how many there were, and how many of them failed. */
  outcomes(): { readonly total: number; readonly failed: number } {
    const total = Math.min(this.#outcomeCount, remembered);
    let failed = 0;
    for (let i = 0; i < total; i++) failed += this.#outcomes[i] ?? 0;
    return { total, failed };
  }

  /** The last times to the first event, in ms, unsorted. */
  firstEventTimes(): Float64Array {
    return this.#firstEventMs.slice(0, Math.min(this.#responses, remembered));
  }
}

/** Percentiles by nearest rank; null if there are no times. */
export function latenciesOf(times: Float64Array): Latencies | null {
  if (times.length === 0) return null;
  const sorted = times.slice().sort();
  const rank = (share: number): number => sorted[Math.ceil(share * sorted.length) - 1] ?? 0;
  return { p50: rank(0.5), p90: rank(0.9), p99: rank(0.99) };
}
