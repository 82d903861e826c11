import { type Candidate, FailoverPlan } from "./failover-plan.ts";
import { apis } from "./apis.ts";
import { Attempt } from "./attempt.ts";
import { UpstreamError } from "./upstream-error.ts";
import type { Awaitable } from "../lib/awaitable.ts";
import type { Clock } from "../lib/clock.ts";
import { ClientDisconnectedError, type DisconnectSignal } from "../lib/disconnect-signal.ts";
import type { Log } from "../lib/log.ts";
import { withoutQuotes } from "../lib/quoted-text.ts";
import type { Alerts } from "./alerts.ts";
import type { ProviderCaps } from "./provider-caps.ts";
import type { RequestTrace } from "./attempt-trace.ts";
import type { Provider, ReaderTimes, RequestForm, UpstreamRequest } from "./provider.ts";
import type { Route } from "./router.ts";

/** The client side of a request, as far as failover needs it. */
export interface Caller extends DisconnectSignal {
  /** Sets the timeouts from now on: those of the provider that has the request; null while none has. */
  useTimes(times: ReaderTimes | null): void;
}

/** Identifies the request and its user, and says how often to try and where it has room. */
interface Requester {
  readonly traceId: string;
  readonly user: string;
  readonly retry: RetryRule;
  /** The parsed request. What providers quote of it in errors is not logged. */
  readonly body?: Readonly<Record<string, unknown>> | undefined;
  /** Follows its attempts; null: nothing does. */
  readonly trace: RequestTrace | null;
  /**
   * Called before each attempt at a provider by this name, where providers have caps or rates: whether the request has
   * a place there. Null if no provider has any.
   */
  readonly takePlace: ((provider: string) => Awaitable<boolean>) | null;
}

/** A response whose first data event has arrived. */
export interface UpstreamResponse {
  readonly attempt: Attempt;
  /** Failed attempts before this one. */
  readonly retries: number;
}

/** The client disconnected before the first data event, while a provider was processing its request. */
export class AbandonedError extends ClientDisconnectedError {
  readonly provider: Provider;

  constructor(provider: Provider) {
    super();
    this.provider = provider;
  }
}

/** How often, and when, to retry. */
export interface RetryRule {
  /** Attempts for one request, over all providers. */
  readonly attempts: number;
  /** Longest pause before the first retry of a provider, in ms; it doubles up to `maxMs`. */
  readonly baseMs: number;
  readonly maxMs: number;
  /** Longest Retry-After that is waited for, in ms. */
  readonly maxRetryAfterMs: number;
}

/** Longest message of a provider in the log, in characters. */
const maxLoggedMessage = 500;

export interface FailoverOptions {
  readonly clock: Clock;
  /** A number in [0, 1), for the pauses. */
  readonly random: () => number;
  readonly alerts: Alerts;
  readonly caps: Pick<ProviderCaps, "adapt">;
  readonly log: Log;
}

/**
 * Tries the route's providers until one has sent its first data event. Until then nothing is charged, so a retry can't
 * charge twice; after it no other provider is tried. All attempts share the total time of the current provider.
 * Rejects with the UpstreamError of the last attempt, or with ClientDisconnectedError: AbandonedError if a provider was
 * processing the request.
 */
export type Failover = (
  route: Route,
  request: UpstreamRequest,
  caller: Caller,
  requester: Requester,
) => Promise<UpstreamResponse>;

/** Sends requests to providers, and retries with the same or another one if that may help. */
export function createFailover(options: FailoverOptions): Failover {
  const { clock, random, alerts, caps, log } = options;

  /**
   * Waits until a provider may be tried again and enters its circuits. Null if there is none, if the wait would exceed
   * the request's total time, or if the circuits refuse after all.
   * @param since monotonic ms at which the request's total time began
   */
  async function waitForCandidate(
    plan: FailoverPlan,
    since: number,
    signal: DisconnectSignal,
    retry: RetryRule,
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

  return async (route, request, caller, { traceId, user, retry, body, trace, takePlace }) => {
    const since = clock.monotonic();
    const plan = new FailoverPlan(route.candidates, since, (provider) => ({
      model: provider.ownName(route.upstreamModel),
      user,
    }));
    let outdated = 0;

    function adapt({ name }: Provider, firstEventMs: number | null): void {
      let inFlight = 0;
      for (const one of route.candidates) if (one.name === name) inFlight += one.health.stats.inFlight;
      caps.adapt(name, { firstEventMs, inFlight });
    }

    /**
     * Sends the request to a provider. If it rejects `stream_options`, which the proxy adds, or that a stream is
     * requested, the request is sent again without. That does not count as an attempt, nor against the provider.
     */
    async function sendOnce(first: Candidate): Promise<Attempt> {
      const { provider } = first;
      const { model } = first.pass;
      const supported = provider.supportsStreamOptions(model);
      let form: RequestForm = { streamOptions: supported, asWhole: false };
      for (let candidate = first; ;) {
        try {
          const attempt = await send(candidate, request, caller, { clock, since, trace, form });
          const { asWhole, streamOptions } = form;
          // Only if the proxy added them all: other options, from the client, may be wrong.
          const hadNoOptions = !asWhole && supported && !streamOptions && request.canDropStreamOptions();
          if (hadNoOptions) provider.disableStreamOptions(model);
          if (asWhole || hadNoOptions) {
            const message = asWhole
              ? "the provider refused a stream, and was asked for one JSON"
              : "the provider takes no stream_options for the model: it gets none from now on";
            log.info({ trace_id: traceId, provider: provider.name, model }, message);
          }
          return attempt;
        } catch (error) {
          const next = error instanceof UpstreamError ? nextForm(error, form, request) : null;
          const again = next === null || caller.gone ? null : plan.enter(provider, clock.monotonic());
          if (next === null || again === null) throw error;
          form = next;
          candidate = again;
        }
      }
    }

    while (plan.count < retry.attempts) {
      if (caller.gone) throw new ClientDisconnectedError();
      const now = plan.count === 0 ? since : clock.monotonic();
      const candidate = plan.nextUntried(now) ?? (await waitForCandidate(plan, since, caller, retry));
      if (candidate === null) break;
      const { provider } = candidate;
      if (takePlace !== null && !(await hasPlace(candidate, caller, takePlace))) {
        plan.leaveOut(provider.name);
        continue;
      }
      if (plan.count === 0) provider.health.retryBudget.earn();
      else provider.health.stats.retries++;
      plan.count++;
      try {
        const attempt = await sendOnce(candidate);
        adapt(provider, attempt.firstEventMs);
        return { attempt, retries: plan.count - 1 };
      } catch (error) {
        if (!(error instanceof UpstreamError)) throw error;
        // The key was replaced in the meantime, so this attempt does not count. Bounded, as key files may change often.
        if (error.isOutdated && outdated++ < route.candidates.length) {
          plan.count--;
          continue;
        }
        // Nothing says that the provider has failed, and another connection is most likely alive: no pause is needed.
        if (error.facts.isStale === true && plan.count < retry.attempts) continue;
        plan.recordFailure(provider, error);
        if (isTooMuch(error)) adapt(provider, null);
        error.provider = provider.name;
        logUpstreamError(log, { route, api: request.api, body, traceId }, provider, error);
        if (error.rule.alert) alerts.raise(provider, error.facts.kind, traceId);
        if (error.rule.retry === "never") break;
      }
    }
    const error = plan.finalError(clock.monotonic());
    error.attempts = plan.count;
    throw error;
  };
}

/** Whether a provider has failed because it has too much to do, or says so. */
function isTooMuch({ facts: { kind, stage } }: UpstreamError): boolean {
  return kind === "rate_limited" || kind === "overloaded" || (kind === "timeout" && stage.startsWith("first_"));
}

/** As takePlace. Gives the pass back unless there is a place. Rejects with ClientDisconnectedError as well. */
async function hasPlace(
  { provider, pass }: Candidate,
  caller: Caller,
  takePlace: (provider: string) => Awaitable<boolean>,
): Promise<boolean> {
  let isPlaced = false;
  try {
    isPlaced = await takePlace(provider.name);
    // Nothing listened to the client meanwhile.
    if (caller.gone) throw new ClientDisconnectedError();
    return isPlaced;
  } finally {
    if (!isPlaced || caller.gone) provider.health.giveBack(pass);
  }
}

interface SendOptions {
  readonly clock: Clock;
  /** Monotonic ms from which the total time counts. */
  readonly since: number;
  readonly trace: RequestTrace | null;
  readonly form: RequestForm;
}

/** The form in which a request may be accepted that was refused in this one; null if there is none. */
function nextForm({ facts }: UpstreamError, form: RequestForm, { api }: UpstreamRequest): RequestForm | null {
  if (facts.namesStreamOptions === true && form.streamOptions) return { ...form, streamOptions: false };
  const mayBeWhole = facts.namesStream === true && !form.asWhole && apis[api].stream !== null;
  return mayBeWhole ? { streamOptions: false, asWhole: true } : null;
}

async function send(
  { provider, pass }: Candidate,
  request: UpstreamRequest,
  caller: Caller,
  { clock, since, trace, form }: SendOptions,
): Promise<Attempt> {
  const attempt = new Attempt(provider, pass, request, clock);
  caller.useTimes(provider.timeouts);
  const onGone = (): void => {
    attempt.cancel(attempt.isSent ? new AbandonedError(provider) : new ClientDisconnectedError());
  };
  caller.onGone = onGone;
  try {
    await attempt.open(pass.model, since, form, trace);
    return attempt;
  } catch (error) {
    caller.useTimes(null);
    // Does nothing if the attempt has failed. If it could not even start, this gives its pass back.
    attempt.cancel(error instanceof Error ? error : new Error(String(error)));
    throw error;
  } finally {
    caller.onGone = undefined;
  }
}

interface LoggedRequest extends Pick<Requester, "traceId" | "body"> {
  readonly route: Route;
  readonly api: UpstreamRequest["api"];
}

/** Logs an upstream error: as an error or a warning if the operator must act, as information if only the client must. */
function logUpstreamError(
  log: Log,
  { route, api, body, traceId }: LoggedRequest,
  provider: Provider,
  { facts, rule, head, cause }: UpstreamError,
): void {
  const { kind, stage, status, upstreamMessage, upstream } = facts;
  const model = provider.ownName(route.upstreamModel);
  // Its model is no secret, and what many errors are about.
  const prompt = { ...body, model: null };
  const withoutPrompt = (text: string | undefined) =>
    text === undefined ? undefined : withoutQuotes(text.slice(0, maxLoggedMessage), prompt);
  const line = {
    trace_id: traceId,
    provider: provider.name,
    key: provider.keyIndex,
    model,
    path: provider.endpoint(api, model).path,
    kind,
    stage,
    status: status ?? head?.status,
    upstream_code: withoutPrompt(upstream?.code),
    upstream_message: withoutPrompt(upstreamMessage),
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
 * Waits for `ms`, never less: Node's timers count from the last full ms and drop fractions, so one could end before the
 * provider's limit does, and the provider would refuse again. Rejects with ClientDisconnectedError as soon as the
 * client disconnects.
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
    const onGone = (): void => {
      clearTimeout(timer);
      signal.onGone = undefined;
      reject(new ClientDisconnectedError());
    };
    signal.onGone = onGone;
  });
}

/**
 * A random part of a pause that doubles with each failure ("full jitter"): requests that failed together must not be
 * retried together.
 * @param failures so far, at least 1
 */
function backoffMs(
  failures: number,
  rule: { readonly baseMs: number; readonly maxMs: number },
  random: () => number,
): number {
  return random() * Math.min(rule.maxMs, rule.baseMs * 2 ** (failures - 1));
}
