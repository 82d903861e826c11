import type { Clock } from "../lib/clock.ts";
import { ClientGoneError, type Hangup } from "../lib/hangup.ts";
import type { Log } from "../lib/log.ts";
import { Exchange } from "./exchange.ts";
import { UpstreamFault } from "./faults.ts";
import type { Provider } from "./provider.ts";
import type { Route } from "./router.ts";

/** What to ask, in the words of each provider. */
export interface Question {
  /** Below the provider's base path, e.g. "/chat/completions". */
  readonly path: string;
  /** The body for a provider that knows the model under this name. */
  bodyFor(upstreamModel: string): Buffer;
}

/** An answer whose first data event has arrived. */
export interface Answer {
  readonly exchange: Exchange;
  /** Providers asked in vain before this one. */
  readonly retries: number;
}

export interface Dispatch {
  /**
   * Asks the route's providers in turn until one has sent its first data event. Up to there nothing is owed, so moving
   * on to the next can't charge twice; after it nobody else is asked.
   * Rejects with the UpstreamFault of the last one asked, or with ClientGoneError.
   */
  (route: Route, question: Question, hangup: Hangup, traceId: string): Promise<Answer>;
}

/** Sends questions to providers, one attempt each. */
export function createDispatch({ clock, log }: { readonly clock: Clock; readonly log: Log }): Dispatch {
  return async (route, question, hangup, traceId) => {
    let retries = 0;
    for (;;) {
      const provider = route.candidates[retries];
      if (provider === undefined) throw new Error(`the route of model ${route.model} names no provider`);
      try {
        const exchange = await ask(provider, route, question, hangup, clock);
        return { exchange, retries };
      } catch (error) {
        if (!(error instanceof UpstreamFault)) throw error;
        logFault(log, provider, error, traceId);
        if (!error.rule.elsewhere || retries + 1 >= route.candidates.length) throw error;
      }
      retries++;
    }
  };
}

async function ask(
  provider: Provider,
  route: Route,
  question: Question,
  hangup: Hangup,
  clock: Clock,
): Promise<Exchange> {
  if (hangup.gone) throw new ClientGoneError();
  const exchange = new Exchange(provider, clock);
  hangup.onGone = () => {
    exchange.cancel(new ClientGoneError());
  };
  try {
    await exchange.open(question.path, question.bodyFor(route.upstreamModel));
    return exchange;
  } finally {
    hangup.onGone = undefined;
  }
}

/** A refusal of the client's own request is news to the client only; the rest is the operator's business. */
function logFault(log: Log, provider: Provider, fault: UpstreamFault, traceId: string): void {
  const { kind, stage, status, upstreamMessage } = fault.facts;
  const cause = fault.cause instanceof Error ? fault.cause.message : undefined;
  const facts = {
    trace_id: traceId,
    provider: provider.name,
    kind,
    stage,
    status,
    upstream_message: upstreamMessage,
    cause,
  };
  if (fault.rule.alert) log.error(facts, "the provider refuses the proxy's key or its account is empty");
  else if (fault.rule.blame) log.warn(facts, "the provider failed");
}
