import { Breaker, type BreakerRule, type BreakerState, refused } from "./breaker.ts";
import type { UpstreamError } from "./upstream-error.ts";

/** How long a model is spared that limits us and doesn't say for how long, in ms. */
const defaultLimitMs = 1000;
/** The longest that a Retry-After can keep us away, in ms: a wrong header must not cost a provider for ever. */
const longestLimitMs = 600_000;
/** Models that are remembered at once. Clients choose the names where a provider serves globs. */
const maxModels = 1000;
/** Models with an open circuit or a limit that are passed over to forget another. */
const maxKeptAtOnce = 20;
/** Models that must be limited at the same time, by requests of several users, before the whole account is. */
const modelsOfAnAccount = 2;

/** For so long an answer shows that the account works, whichever circuits are open; ms. */
const recentMs = 60_000;

/** Which model of the account is asked, and for whom. */
export interface Target {
  /** As the provider knows it. */
  readonly model: string;
  readonly user: string;
}

/** The right to send one request; to be handed to `answered`, and to one of `failed`, `completed` and `left`. */
export interface Pass extends Target {
  readonly accountPermit: number;
  readonly modelPermit: number;
}

/** A model that is not asked as usual. */
export interface ModelCircuit {
  readonly model: string;
  readonly breaker: BreakerState;
  /** ms for which the provider has asked for no more requests; 0 where it hasn't. */
  readonly limitedForMs: number;
}

interface ModelHealth {
  readonly breaker: Breaker;
  /** The provider has asked for no more requests until then. */
  limitedUntil: number;
  /** Whose request was told so. */
  limitedBy: string;
}

/**
 * Whether one account of a provider may be asked for a model, and how it has been doing. Connections that fail and a key
 * that is refused concern the account; all other failures and Retry-After windows concern the model that was asked. All
 * that is remembered between requests stands here. Times are in ms of a monotonic clock.
 */
export class ProviderHealth {
  readonly stats = new ProviderStats();
  readonly retryBudget = new RetryBudget();
  /** The operator has taken it out of service: what runs goes on, nothing new comes. */
  drained = false;
  /** Whether the provider has answered with this key since the start. */
  keyWorked = false;
  /** Monotonic ms of the last answer; -Infinity before the first. */
  lastResponseAt = -Infinity;
  readonly #rule: BreakerRule;
  readonly #account: Breaker;
  /** Several models were limited at once: no model is asked until then. */
  #limitedUntil = 0;
  /** By the name of the model, the least recently added first. */
  readonly #models = new Map<string, ModelHealth>();

  constructor(rule: BreakerRule) {
    this.#rule = rule;
    this.#account = new Breaker(rule);
  }

  /** Lets a request through or not; null where it must not be sent. */
  enter(target: Target, now: number): Pass | null {
    if (this.drained || this.limitedMs(target.model, now) > 0) return null;
    return this.#enter(target, (breaker) => breaker.enter(now));
  }

  /** The same where nobody else can be asked: of what an open circuit keeps away, a growing share passes as trials. */
  enterAsTrial(target: Target, now: number): Pass | null {
    if (this.drained || this.limitedMs(target.model, now) > 0) return null;
    return this.#enter(target, (breaker) => breaker.enterAsTrial(now));
  }

  /** ms until the circuits let a request for the model through, as far as is known; 0 where they do now. */
  circuitMs(model: string, now: number): number {
    return Math.max(this.#account.waitMs(now), this.#models.get(model)?.breaker.waitMs(now) ?? 0);
  }

  /** ms for which the provider has asked for no more requests for the model; 0 where it hasn't. */
  limitedMs(model: string, now: number): number {
    return Math.max(0, this.#limitedUntil - now, (this.#models.get(model)?.limitedUntil ?? 0) - now);
  }

  /** The circuit of the whole account. */
  accountState(now: number): BreakerState {
    return this.#account.state(now);
  }

  /** ms for which no model is asked; 0 where only single models are limited. */
  accountLimitedMs(now: number): number {
    return Math.max(0, this.#limitedUntil - now);
  }

  /** The models whose circuit is not closed, or that are limited; 100 at the most. */
  circuits(now: number): readonly ModelCircuit[] {
    const found: ModelCircuit[] = [];
    for (const [model, { breaker, limitedUntil }] of this.#models) {
      const one = { model, breaker: breaker.state(now), limitedForMs: Math.max(0, Math.ceil(limitedUntil - now)) };
      if (one.breaker !== "closed" || one.limitedForMs > 0) found.push(one);
      if (found.length === 100) break;
    }
    return found;
  }

  /** Whether chats show that it works: one was answered after `since`, and no circuit tells otherwise. */
  isServing(since: number, now: number): boolean {
    if (this.lastResponseAt <= since || this.#account.state(now) !== "closed") return false;
    return now - this.lastResponseAt < recentMs || this.circuits(now).every(({ breaker }) => breaker === "closed");
  }

  /** The operator says that it is well again: whatever kept requests away is forgotten. */
  restore(): void {
    this.drained = false;
    this.forgetFailures();
  }

  /** Forgets what was held against the account, but not the operator's word. */
  forgetFailures(): void {
    this.#limitedUntil = 0;
    this.#account.close();
    this.#models.clear();
  }

  /** A request goes out. */
  sent(): void {
    this.stats.inFlight++;
    this.stats.asked++;
  }

  /** Its first data event is here, which may not be the last word: `failed` may still follow. */
  responded({ model, accountPermit, modelPermit }: Pass, firstEventMs: number, now: number): void {
    this.keyWorked = true;
    this.lastResponseAt = now;
    this.#account.succeeded(accountPermit, now);
    this.#modelOf(model, now).breaker.succeeded(modelPermit, now);
    this.stats.recordFirstEvent(firstEventMs);
  }

  /** Its answer is complete. */
  completed(): void {
    this.stats.inFlight--;
    this.stats.recordOutcome(false);
  }

  /** It came to nothing, or broke off. */
  failed(pass: Pass, error: UpstreamError, now: number): void {
    const { kind, stage, retryAfterMs } = error.facts;
    const { model, user, accountPermit, modelPermit } = pass;
    const { countsAgainstProvider } = error.rule;
    this.stats.inFlight--;
    this.stats.recordOutcome(countsAgainstProvider);
    if (countsAgainstProvider && (retryAfterMs !== undefined || kind === "rate_limited")) {
      this.#limit(pass, now + Math.min(retryAfterMs ?? defaultLimitMs, longestLimitMs), now);
    }
    // A provider that limits us works, and when to come back needs no probe. And the whole time may have run out
    // because of others, or of a long answer.
    const counts = countsAgainstProvider && kind !== "rate_limited" && stage !== "total";
    const ofAccount = stage === "connect" || kind === "key_refused" || kind === "no_balance";
    // An answer that breaks off was taken for a success at its first event.
    const succeededBefore = stage === "streaming";
    if (counts && ofAccount) this.#account.failed(accountPermit, now, user, succeededBefore);
    else this.#account.abandoned(accountPermit);
    if (counts && !ofAccount) this.#modelOf(model, now).breaker.failed(modelPermit, now, user, succeededBefore);
    else this.#models.get(model)?.breaker.abandoned(modelPermit);
  }

  /** We gave it up ourselves: the client has left. */
  abandoned({ model, accountPermit, modelPermit }: Pass): void {
    this.stats.inFlight--;
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

  /** The later end holds: an answer that says nothing must not shorten what another has said. */
  #limit({ model, user }: Target, until: number, now: number): void {
    const health = this.#modelOf(model, now);
    if (until > health.limitedUntil) {
      health.limitedUntil = until;
      health.limitedBy = user;
    }
    const limited = [...this.#models.values()].filter(({ limitedUntil }) => limitedUntil > now);
    // One user may go through all the models that have a limit of their own.
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

/** Part of a retry that each first request earns: retries come to a fifth of them at the most. */
const share = 0.2;
/** What may be saved up, and what there is at the start, so that little traffic can retry at all. */
const reserve = 10;

/**
 * How often a provider may be asked again by requests that it has failed already. Without a bound, every request to a
 * dead provider would become several, at the worst of times.
 */
export class RetryBudget {
  #saved = reserve;

  /** A request asks for the first time. */
  earn(): void {
    if (this.#saved < reserve) this.#saved = Math.min(reserve, this.#saved + share);
  }

  /** Takes a retry, if there is one. */
  tryTake(): boolean {
    if (this.#saved < 1) return false;
    this.#saved--;
    return true;
  }
}

/** How many of the last answers are remembered. */
const remembered = 256;

/** Times to the first data event, in ms. */
export interface Latencies {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
}

/** What came of asking a provider lately: two rings and a few counts, so that an answer costs a few assignments. */
export class ProviderStats {
  /** Requests under way. */
  inFlight = 0;
  /** Requests ever asked. */
  asked = 0;
  /** Of these, how many were second or later attempts for the same request. */
  retries = 0;
  /** Requests that the provider ever failed. */
  failed = 0;
  readonly #firstEventMs = new Float64Array(remembered);
  #responses = 0;
  readonly #outcomes = new Uint8Array(remembered);
  #outcomeCount = 0;

  /** @param firstEventMs from the request to its first data event */
  recordFirstEvent(firstEventMs: number): void {
    this.#firstEventMs[this.#responses++ % remembered] = firstEventMs;
  }

  /** One more answer is over, well or not. */
  recordOutcome(failed: boolean): void {
    if (failed) this.failed++;
    this.#outcomes[this.#outcomeCount++ % remembered] = failed ? 1 : 0;
  }

  /** The last answers: how many there were, and how many of them failed. */
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

/** Percentiles by nearest rank; null where there are no times. */
export function latenciesOf(times: Float64Array): Latencies | null {
  if (times.length === 0) return null;
  const sorted = times.slice().sort();
  const rank = (share: number): number => sorted[Math.ceil(share * sorted.length) - 1] ?? 0;
  return { p50: rank(0.5), p90: rank(0.9), p99: rank(0.99) };
}
