import { UpstreamError } from "./upstream-error.ts";
import type { Provider } from "./provider.ts";
import type { Pass, Target } from "./provider-health.ts";

/** A provider to try now, with the pass from its circuits. */
export interface Candidate {
  readonly provider: Provider;
  readonly pass: Pass;
}

/** A provider to wait for. */
interface Wait {
  readonly provider: Provider;
  /** ms until its rate limit ends, as far as is known; 0 if only the normal backoff applies. */
  readonly limitedMs: number;
}

/**
 * The attempts of one request so far, and its next candidate: first, at once and in the route's order, the providers
 * not yet tried; then, after a pause, those for which a retry may succeed.
 */
export class FailoverPlan {
  /** Attempts so far. */
  count = 0;
  #candidates: readonly Provider[];
  readonly #since: number;
  readonly #target: (provider: Provider) => Target;
  readonly #failures: { readonly provider: Provider; readonly error: UpstreamError }[] = [];

  /**
   * @param since monotonic ms at which the request's total time began
   * @param target the model by the provider's own name, and the user
   */
  constructor(candidates: readonly Provider[], since: number, target: (provider: Provider) => Target) {
    this.#candidates = candidates;
    this.#since = since;
    this.#target = target;
  }

  /** Passes over a provider, with all its keys, from now on: the request has no place there, or its rates refuse it. */
  leaveOut(name: string): void {
    this.#candidates = this.#candidates.filter((provider) => provider.name !== name);
  }

  recordFailure(provider: Provider, error: UpstreamError): void {
    this.#failures.push({ provider, error });
  }

  /**
   * A provider that has not been tried and is available at once; null if there is none. If all circuits are open, some
   * requests still pass as trials: rejecting them all would never show that a provider has recovered.
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

  /** Enters a provider's circuits; null if they refuse. */
  enter(provider: Provider, now: number): Candidate | null {
    const pass = provider.health.enter(this.#target(provider), now);
    return pass === null ? null : { provider, pass };
  }

  /**
   * The provider to wait for, the one available soonest; null if there is none.
   * @param longestMs longest Retry-After that is waited for
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

  /** Whether the next attempt at this provider is a retry. */
  isRetry(provider: Provider): boolean {
    return this.#lastErrorOf(provider) !== undefined;
  }

  /**
   * The error to report when no provider is left: the last error, or, without any attempt, that all are rate limited or
   * unavailable. An unknown model is reported only if no provider failed in another way: the one that knows the model
   * may soon be back.
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
      // An open circuit always lets a share of requests through, so a client may retry soon.
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

  /** The last error that concerns this key: its own, or one of the whole provider. */
  #lastErrorOf(provider: Provider): UpstreamError | undefined {
    return this.#failures.findLast(
      (failure) =>
        failure.provider === provider ||
        (failure.error.rule.scope === "provider" && failure.provider.name === provider.name),
    )?.error;
  }
}
