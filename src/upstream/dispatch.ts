import type { Clock } from "../lib/clock.ts";
import { ClientGoneError, type Hangup } from "../lib/hangup.ts";
import type { Log } from "../lib/log.ts";
import type { Alerts } from "./providers/alerts.ts";
import { Attempts, type Turn } from "./attempts.ts";
import { Exchange } from "./exchange.ts";
import { UpstreamFault } from "./faults.ts";
import { backoffMs, pause } from "./pause.ts";
import type { Provider, ReaderTimes } from "./providers/provider.ts";
import type { Question } from "./question.ts";
import type { Route } from "./router.ts";

/** Who waits for an answer. */
export interface Asker extends Hangup {
  /** Told whose times hold from now on: those of the provider that is asked; null while nobody is. */
  follow(times: ReaderTimes | null): void;
}

/** Whose request it is. */
interface Requester {
  readonly traceId: string;
  readonly user: string;
}

/** An answer whose first data event has arrived. */
export interface Answer {
  readonly exchange: Exchange;
  /** Questions asked in vain before this one. */
  readonly retries: number;
}

/** Thrown where the client has left before the first data event, and a provider was at work for it. */
export class AbandonedError extends ClientGoneError {
  readonly provider: Provider;

  constructor(provider: Provider) {
    super();
    this.provider = provider;
  }
}

/** How often, and when, to ask again. */
interface RetryRule {
  /** Questions for one answer, over all providers. */
  readonly attempts: number;
  /** Longest first pause before the same provider is asked again, in ms; it doubles up to `maxMs`. */
  readonly baseMs: number;
  readonly maxMs: number;
  /** The longest that a provider's Retry-After is waited for, in ms. */
  readonly maxRetryAfterMs: number;
}

/** Longest of a provider's words in the log, in characters. */
const maxLoggedWords = 500;

export interface DispatchOptions {
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
 * Rejects with the UpstreamFault of the last one asked, or with ClientGoneError: AbandonedError where it was being asked.
 */
export type Dispatch = (route: Route, question: Question, asker: Asker, who: Requester) => Promise<Answer>;

/** Sends questions to providers, and again to others where it makes sense. */
export function createDispatch(options: DispatchOptions): Dispatch {
  const { retry, clock, random, alerts, log } = options;

  /**
   * Waits for a provider that may do better later, and enters it. Null where there is none, where it would take longer
   * than the request has, or where it refuses after all.
   * @param since monotonic ms at which the request's total time began
   */
  async function waitForTurn(attempts: Attempts, since: number, hangup: Hangup): Promise<Turn | null> {
    const now = clock.monotonic();
    const wait = attempts.worthWaitingFor(now, retry.maxRetryAfterMs);
    if (wait === null) return null;
    const { provider, limitedMs } = wait;
    const ms = limitedMs + backoffMs(Math.max(1, attempts.count), retry, random);
    if (now + ms >= since + provider.timeouts.total) return null;
    if (attempts.isRepeat(provider) && !provider.health.retryBudget.tryTake()) return null;
    await pause(ms, hangup);
    return attempts.enter(provider, clock.monotonic());
  }

  return async (route, question, asker, { traceId, user }) => {
    const since = clock.monotonic();
    const attempts = new Attempts(route.candidates, since, (provider) => ({
      model: provider.ownName(route.upstreamModel),
      user,
    }));
    let outdated = 0;

    /**
     * Asks a provider. One that refuses a request for its `stream_options`, which the proxy adds, is asked once more
     * without them. That is no further attempt, and says nothing about the provider's health.
     */
    async function askOnce(turn: Turn): Promise<Exchange> {
      const { provider, pass } = turn;
      const streamOptions = provider.takesStreamOptions(pass.model);
      try {
        return await ask(turn, question, asker, clock, since, streamOptions);
      } catch (error) {
        if (!streamOptions || !(error instanceof UpstreamFault) || error.facts.namesStreamOptions !== true) throw error;
        const again = asker.gone ? null : attempts.enter(provider, clock.monotonic());
        if (again === null) throw error;
        const exchange = await ask(again, question, asker, clock, since, false);
        // Only of the proxy's own: a client may write others that are wrong.
        if (question.sparesStreamOptions) {
          provider.rememberNoStreamOptions(pass.model);
          const line = { trace_id: traceId, provider: provider.name, model: pass.model };
          log.info(line, "the provider takes no stream_options for the model: it gets none from now on");
        }
        return exchange;
      }
    }

    while (attempts.count < retry.attempts) {
      if (asker.gone) throw new ClientGoneError();
      const now = attempts.count === 0 ? since : clock.monotonic();
      const turn = attempts.fresh(now) ?? (await waitForTurn(attempts, since, asker));
      if (turn === null) break;
      const { provider } = turn;
      if (attempts.count === 0) provider.health.retryBudget.earn();
      else provider.health.stats.retries++;
      attempts.count++;
      try {
        const exchange = await askOnce(turn);
        return { exchange, retries: attempts.count - 1 };
      } catch (error) {
        if (!(error instanceof UpstreamFault)) throw error;
        // The key was replaced in the meantime: with the new one this was no attempt. Bounded, as files may change often.
        if (error.isOutdated && outdated++ < route.candidates.length) {
          attempts.count--;
          continue;
        }
        attempts.failed(provider, error);
        error.provider = provider.name;
        logFault(log, route, question, provider, error, traceId);
        if (error.rule.alert) alerts.raise(provider, error.facts.kind, traceId);
        if (error.rule.retry === "never") break;
      }
    }
    const verdict = attempts.verdict(clock.monotonic());
    verdict.attempts = attempts.count;
    throw verdict;
  };
}

async function ask(
  { provider, pass }: Turn,
  question: Question,
  asker: Asker,
  clock: Clock,
  since: number,
  streamOptions: boolean,
): Promise<Exchange> {
  const exchange = new Exchange(provider, pass, question, clock);
  asker.follow(provider.timeouts);
  asker.onGone = () => {
    exchange.cancel(exchange.isAsked ? new AbandonedError(provider) : new ClientGoneError());
  };
  try {
    await exchange.open(pass.model, since, streamOptions);
    return exchange;
  } catch (error) {
    asker.follow(null);
    // Does nothing where the exchange has failed; where it could not even begin, gives its pass back.
    exchange.cancel(error instanceof Error ? error : new Error(String(error)));
    throw error;
  } finally {
    asker.onGone = undefined;
  }
}

/** Logs what a provider said or did, each at the level of whoever has to act: the operator, or only the client. */
function logFault(
  log: Log,
  route: Route,
  { api }: Question,
  provider: Provider,
  { facts, rule, head, cause }: UpstreamFault,
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
    upstream_message: upstreamMessage?.slice(0, maxLoggedWords),
    content_type: head?.contentType,
    content_encoding: head?.contentEncoding,
    location: head?.location,
    cause: cause instanceof Error ? cause.message : undefined,
  };
  if (rule.alert) log.error(line, "the provider refuses the proxy's key or its account is empty");
  else if (kind === "proxy_overloaded")
    log.error(line, "this machine could not reach the provider for a reason of its own; no provider is to blame");
  else if (rule.blame) log.warn(line, "the provider failed");
  else if (kind === "model_unknown") log.warn(line, "the provider doesn't know the model");
  else log.info(line, "the provider refused the request as the client's fault");
}
