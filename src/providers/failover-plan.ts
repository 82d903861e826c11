import { UpstreamError } from "./upstream-error.ts";
import type { Provider } from "./provider.ts";
import type { Pass, Target } from "./provider-health.ts";

/** A provider to ask now, with the pass by which its circuits let us in. */
export interface Candidate {
  readonly provider: Provider;
  readonly pass: Pass;
}

/** A provider to wait for. */
interface Wait {
  readonly provider: Provider;
  /** ms until it may be asked, as far as is known; 0 where only a pause for decency is due. */
  readonly limitedMs: number;
}

/**
 * What one request has asked so far, and who is next: first, in the route's order, whoever has not been asked, at once;
 * then, after a pause, those who may do better the second time.
 */
export class FailoverPlan {
  /** Requests asked. */
  count = 0;
  readonly #candidates: readonly Provider[];
  readonly #since: number;
  readonly #target: (provider: Provider) => Target;
  readonly #failures: { readonly provider: Provider; readonly error: UpstreamError }[] = [];

  /**
   * @param since monotonic ms at which the request's total time began
   * @param target what a provider is asked for, in its own words, and for whom
   */
  constructor(candidates: readonly Provider[], since: number, target: (provider: Provider) => Target) {
    this.#candidates = candidates;
    this.#since = since;
    this.#target = target;
  }

  recordFailure(provider: Provider, error: UpstreamError): void {
    this.#failures.push({ provider, error });
  }

  /**
   * Someone who has not been asked and can be at once; null where there is nobody. Where all circuits are open, some
   * requests pass as trials all the same: a request that is refused finds out nothing.
   */
  nextUntried(now: number): Candidate | null {
    for (const provider of this.#candidates) {
      if (this.#failures.length > 0 && (this.isRetry(provider) || this.#isLate(provider, now))) continue;
      const candidate = this.enter(provider, now);
      if (candidate !== null) return candidate;
    }
    if (this.#failures.length > 0) return null;
    for (const provider of this.#candidates) {
      const pass = provider.health.enterAsTrial(this.#target(provider), now);
      if (pass !== null) return { provider, pass };
    }
    return null;
  }

  /** Asks a provider's circuits to be let in; null where they refuse. */
  enter(provider: Provider, now: number): Candidate | null {
    const pass = provider.health.enter(this.#target(provider), now);
    return pass === null ? null : { provider, pass };
  }

  /**
   * Who is worth waiting for, the soonest first; null where nobody is.
   * @param longestMs what a provider may ask to be left alone for and still be waited for
   */
  nextToWaitFor(now: number, longestMs: number): Wait | null {
    let best: Wait | null = null;
    for (const provider of this.#candidates) {
      const { health } = provider;
      const { model } = this.#target(provider);
      const error = this.#lastErrorOf(provider);
      if (health.drained || health.circuitMs(model, now) > 0) continue;
      if (error !== undefined && error.rule.retry !== "again") continue;
      const limitedMs = health.limitedMs(model, now);
      if (limitedMs <= longestMs && (best === null || limitedMs < best.limitedMs)) best = { provider, limitedMs };
    }
    return best;
  }

  /** Whether asking the provider now is to ask it again. */
  isRetry(provider: Provider): boolean {
    return this.#lastErrorOf(provider) !== undefined;
  }

  /**
   * What to say where nobody can be asked: the last fault, or, where nobody was, that all are limited or out. That a
   * provider doesn't know the model is said only where none has failed otherwise: the one that knows it may be back soon.
   */
  finalError(now: number): UpstreamError {
    const known = this.#failures.findLast(({ error }) => error.facts.kind !== "model_unknown");
    const last = known ?? this.#failures.at(-1);
    if (last !== undefined) return last.error;
    let soonestMs = Infinity;
    let limited = false;
    for (const provider of this.#candidates) {
      const { health } = provider;
      if (health.drained) continue;
      const { model } = this.#target(provider);
      // Behind an open circuit a share of requests passes all the time: it pays to try again soon.
      const circuitMs = Math.min(1000, health.circuitMs(model, now));
      const waitMs = Math.max(circuitMs, health.limitedMs(model, now));
      if (waitMs >= soonestMs) continue;
      soonestMs = waitMs;
      limited = circuitMs === 0;
    }
    return new UpstreamError({
      kind: limited ? "rate_limited" : "unavailable",
      stage: "connect",
      ...(soonestMs === Infinity ? {} : { retryAfterMs: Math.max(0, soonestMs) }),
    });
  }

  #isLate(provider: Provider, now: number): boolean {
    return now - this.#since >= provider.timeouts.total;
  }

  /** The last fault that speaks against asking this one: its own, or one of the whole provider behind it. */
  #lastErrorOf(provider: Provider): UpstreamError | undefined {
    return this.#failures.findLast(
      (failure) =>
        failure.provider === provider ||
        (failure.error.rule.scope === "provider" && failure.provider.name === provider.name),
    )?.error;
  }
}
