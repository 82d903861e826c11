import { type Candidate, FailoverPlan } from "./failover-plan.ts";
import { Attempt } from "./attempt.ts";
import { UpstreamError } from "./upstream-error.ts";
import type { Clock } from "../lib/clock.ts";
import { ClientDisconnectedError, type DisconnectSignal } from "../lib/disconnect-signal.ts";
import type { Log } from "../lib/log.ts";
import type { Alerts } from "./alerts.ts";
import type { Provider, ReaderTimes, UpstreamRequest } from "./provider.ts";
import type { Route } from "./router.ts";

/** Who waits for an answer. */
export interface Caller extends DisconnectSignal {
  /** Told whose times hold from now on: those of the provider that is asked; null while nobody is. */
  useTimes(times: ReaderTimes | null): void;
}

/** Whose request it is. */
interface Requester {
  readonly traceId: string;
  readonly user: string;
}

/** An answer whose first data event has arrived. */
export interface UpstreamResponse {
  readonly attempt: Attempt;
  /** Requests asked in vain before this one. */
  readonly retries: number;
}

/** Thrown where the client has left before the first data event, and a provider was at work for it. */
export class AbandonedError extends ClientDisconnectedError {
  readonly provider: Provider;

  constructor(provider: Provider) {
    super();
    this.provider = provider;
  }
}

/** How often, and when, to ask again. */
interface RetryRule {
  /** Requests for one answer, over all providers. */
  readonly attempts: number;
  /** Longest first pause before the same provider is asked again, in ms; it doubles up to `maxMs`. */
  readonly baseMs: number;
  readonly maxMs: number;
  /** The longest that a provider's Retry-After is waited for, in ms. */
  readonly maxRetryAfterMs: number;
}

/** Longest of a provider's words in the log, in characters. */
const maxLoggedMessage = 500;

export interface FailoverOptions {
  readonly retry: RetryRule;
  readonly clock: Clock;
  /** A number in [0, 1), for the pauses. */
  readonly random: () => number;
  readonly alerts: Alerts;
  readonly log: Log;
}

/**
 * Asks the route's providers until one has sent its first data event. Up to there nothing is owed, so asking again
 * can't charge twice; after it nobody else is asked. All of it shares the total time of the provider asked.
 * Rejects with the UpstreamError of the last one asked, or with ClientDisconnectedError: AbandonedError where it was being asked.
 */
export type Failover = (
  route: Route,
  request: UpstreamRequest,
  caller: Caller,
  requester: Requester,
) => Promise<UpstreamResponse>;

/** Sends requests to providers, and again to others where it makes sense. */
export function createFailover(options: FailoverOptions): Failover {
  const { retry, clock, random, alerts, log } = options;

  /**
   * Waits for a provider that may do better later, and enters it. Null where there is none, where it would take longer
   * than the request has, or where it refuses after all.
   * @param since monotonic ms at which the request's total time began
   */
  async function waitForCandidate(
    plan: FailoverPlan,
    since: number,
    signal: DisconnectSignal,
  ): Promise<Candidate | null> {
    const now = clock.monotonic();
    const wait = plan.nextToWaitFor(now, retry.maxRetryAfterMs);
    if (wait === null) return null;
    const { provider, limitedMs } = wait;
    const ms = limitedMs + backoffMs(Math.max(1, plan.count), retry, random);
    if (now + ms >= since + provider.timeouts.total) return null;
    if (plan.isRetry(provider) && !provider.health.retryBudget.tryTake()) return null;
    await pause(ms, signal);
    return plan.enter(provider, clock.monotonic());
  }

  return async (route, request, caller, { traceId, user }) => {
    const since = clock.monotonic();
    const plan = new FailoverPlan(route.candidates, since, (provider) => ({
      model: provider.ownName(route.upstreamModel),
      user,
    }));
    let outdated = 0;

    /**
     * Asks a provider. One that refuses a request for its `stream_options`, which the proxy adds, is asked once more
     * without them. That is no further attempt, and says nothing about the provider's health.
     */
    async function sendOnce(candidate: Candidate): Promise<Attempt> {
      const { provider, pass } = candidate;
      const streamOptions = provider.supportsStreamOptions(pass.model);
      try {
        return await send(candidate, request, caller, clock, since, streamOptions);
      } catch (error) {
        if (!streamOptions || !(error instanceof UpstreamError) || error.facts.namesStreamOptions !== true) throw error;
        const again = caller.gone ? null : plan.enter(provider, clock.monotonic());
        if (again === null) throw error;
        const attempt = await send(again, request, caller, clock, since, false);
        // Only of the proxy's own: a client may write others that are wrong.
        if (request.canDropStreamOptions) {
          provider.disableStreamOptions(pass.model);
          const line = { trace_id: traceId, provider: provider.name, model: pass.model };
          log.info(line, "the provider takes no stream_options for the model: it gets none from now on");
        }
        return attempt;
      }
    }

    while (plan.count < retry.attempts) {
      if (caller.gone) throw new ClientDisconnectedError();
      const now = plan.count === 0 ? since : clock.monotonic();
      const candidate = plan.nextUntried(now) ?? (await waitForCandidate(plan, since, caller));
      if (candidate === null) break;
      const { provider } = candidate;
      if (plan.count === 0) provider.health.retryBudget.earn();
      else provider.health.stats.retries++;
      plan.count++;
      try {
        const attempt = await sendOnce(candidate);
        return { attempt, retries: plan.count - 1 };
      } catch (error) {
        if (!(error instanceof UpstreamError)) throw error;
        // The key was replaced in the meantime: with the new one this was no attempt. Bounded, as files may change often.
        if (error.isOutdated && outdated++ < route.candidates.length) {
          plan.count--;
          continue;
        }
        plan.recordFailure(provider, error);
        error.provider = provider.name;
        logUpstreamError(log, route, request, provider, error, traceId);
        if (error.rule.alert) alerts.raise(provider, error.facts.kind, traceId);
        if (error.rule.retry === "never") break;
      }
    }
    const error = plan.finalError(clock.monotonic());
    error.attempts = plan.count;
    throw error;
  };
}

async function send(
  { provider, pass }: Candidate,
  request: UpstreamRequest,
  caller: Caller,
  clock: Clock,
  since: number,
  streamOptions: boolean,
): Promise<Attempt> {
  const attempt = new Attempt(provider, pass, request, clock);
  caller.useTimes(provider.timeouts);
  caller.onGone = () => {
    attempt.cancel(attempt.isSent ? new AbandonedError(provider) : new ClientDisconnectedError());
  };
  try {
    await attempt.open(pass.model, since, streamOptions);
    return attempt;
  } catch (error) {
    caller.useTimes(null);
    // Does nothing where the attempt has failed; where it could not even begin, gives its pass back.
    attempt.cancel(error instanceof Error ? error : new Error(String(error)));
    throw error;
  } finally {
    caller.onGone = undefined;
  }
}

/** Logs what a provider said or did, each at the level of whoever has to act: the operator, or only the client. */
function logUpstreamError(
  log: Log,
  route: Route,
  { api }: UpstreamRequest,
  provider: Provider,
  { facts, rule, head, cause }: UpstreamError,
  traceId: string,
): void {
  const { kind, stage, status, upstreamMessage, upstream } = facts;
  const line = {
    trace_id: traceId,
    provider: provider.name,
    key: provider.keyIndex,
    model: provider.ownName(route.upstreamModel),
    path: provider.endpoints[api]?.path,
    kind,
    stage,
    status: status ?? head?.status,
    upstream_code: upstream?.code,
    upstream_message: upstreamMessage?.slice(0, maxLoggedMessage),
    content_type: head?.contentType,
    content_encoding: head?.contentEncoding,
    location: head?.location,
    cause: cause instanceof Error ? cause.message : undefined,
  };
  if (rule.alert) log.error(line, "the provider refuses the proxy's key or its account is empty");
  else if (kind === "proxy_overloaded")
    log.error(
      line,
      "this machine could not reach the provider for a local reason; it does not count against the provider",
    );
  else if (rule.countsAgainstProvider) log.warn(line, "the provider failed");
  else if (kind === "model_unknown") log.warn(line, "the provider doesn't know the model");
  else log.info(line, "the provider refused the request as a client error");
}

/**
 * Waits for `ms`, never less: Node's timers count from the last full ms and drop fractions, so one could end before a
 * limit that it was to outlast, and the provider would refuse. Rejects with ClientDisconnectedError as soon as the client leaves.
 */
function pause(ms: number, signal: DisconnectSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.gone) {
      reject(new ClientDisconnectedError());
      return;
    }
    const timer = setTimeout(
      () => {
        signal.onGone = undefined;
        resolve();
      },
      Math.ceil(ms) + 1,
    ).unref();
    signal.onGone = () => {
      clearTimeout(timer);
      signal.onGone = undefined;
      reject(new ClientDisconnectedError());
    };
  });
}

/**
 * A random part of a pause that doubles with each failure ("full jitter"): requests that failed together must not come
 * back together.
 * @param failures so far, at least 1
 */
function backoffMs(
  failures: number,
  rule: { readonly baseMs: number; readonly maxMs: number },
  random: () => number,
): number {
  return random() * Math.min(rule.maxMs, rule.baseMs * 2 ** (failures - 1));
}
