import { Breaker, refused, type BreakerRule } from "./breaker.ts";
import type { UpstreamFault } from "../faults.ts";
import { ProviderStats } from "./provider-stats.ts";
import { RetryBudget } from "./retry-budget.ts";

/** How long a provider is spared that limits us and doesn't say for how long, in ms. */
const defaultLimitMs = 1000;
/** The longest that a Retry-After can keep us away, in ms: a wrong header must not cost a provider for ever. */
const longestLimitMs = 600_000;

/**
 * Whether one account of a provider may be asked, and how it has been doing. All that is remembered of it between
 * requests stands here. Times are in ms of a monotonic clock.
 */
export class ProviderHealth {
  readonly breaker: Breaker;
  readonly stats = new ProviderStats();
  readonly retryBudget = new RetryBudget();
  /** The operator has taken it out of service: what runs goes on, nothing new comes. */
  drained = false;
  /** Whether the provider has answered with this key since the start. */
  keyWorked = false;
  /** The provider has asked to be left alone until then. */
  limitedUntil = 0;

  constructor(rule: BreakerRule) {
    this.breaker = new Breaker(rule);
  }

  /** Lets a question through or not. Returns a ticket, to be handed to one of `failed`, `completed` and `left`. */
  enter(now: number): number {
    if (this.drained || now < this.limitedUntil) return refused;
    return this.breaker.enter(now);
  }

  /** The operator says that it is well again: whatever kept requests away is forgotten. */
  restore(): void {
    this.drained = false;
    this.forgive();
  }

  /** Forgets what was held against the account, but not the operator's word. */
  forgive(): void {
    this.limitedUntil = 0;
    this.breaker.close();
  }

  /** A question goes out. */
  asked(): void {
    this.stats.inFlight++;
    this.stats.asked++;
  }

  /** Its first data event is here, which may not be the last word: `failed` may still follow. */
  answered(ticket: number, firstEventMs: number): void {
    this.keyWorked = true;
    this.breaker.succeeded(ticket);
    this.stats.answered(firstEventMs);
  }

  /** Its answer is complete. */
  completed(): void {
    this.stats.inFlight--;
    this.stats.ended(false);
  }

  /** It came to nothing, or broke off. */
  failed(ticket: number, fault: UpstreamFault, now: number): void {
    const { kind, stage, retryAfterMs } = fault.facts;
    this.stats.inFlight--;
    this.stats.ended(fault.rule.blame);
    if (retryAfterMs !== undefined || kind === "rate_limited") {
      this.limitedUntil = now + Math.min(retryAfterMs ?? defaultLimitMs, longestLimitMs);
    }
    // A provider that limits us works, and when to come back needs no probe. And the whole time may have run out
    // because of others, or of a long answer.
    const counts = fault.rule.blame && kind !== "rate_limited" && stage !== "total";
    if (counts) this.breaker.failed(ticket, now);
    else this.breaker.left(ticket);
  }

  /** We gave it up ourselves: the client has left. */
  left(ticket: number): void {
    this.stats.inFlight--;
    this.breaker.left(ticket);
  }
}
