import { AppError } from "../errors.ts";
import type { Emit } from "../events/types.ts";
import type { Clock } from "../lib/clock.ts";
import { createIsoTime } from "../lib/iso-time.ts";
import type { Log } from "../lib/log.ts";
import { SlotSet } from "../lib/slot-set.ts";
import type { LimitAsk, LimitRefusal, Limiter } from "../limits/limiter.ts";
import type { Permits } from "../limits/permits.ts";
import type { WindowTally } from "../limits/window-tally.ts";
import type { Allowances } from "../quota/allowances.ts";
import type { Ledger, Limit, Settlement } from "../quota/ledger.ts";
import { AbandonedError, type Answer, type Dispatch } from "../upstream/dispatch.ts";
import type { Exchange } from "../upstream/exchange.ts";
import { UpstreamFault } from "../upstream/faults.ts";
import type { Provider } from "../upstream/providers/provider.ts";
import type { Route, Router } from "../upstream/router.ts";
import { createAdmission } from "./admission.ts";
import { fromBackend } from "../quota/backend-call.ts";
import { Bill, nothingOwed } from "./bill.ts";
import type { ChatRequest } from "./chat-request.ts";
import { ChatRun, type ChatCall } from "./chat-run.ts";
import type { Client } from "./client.ts";
import { collectAnswer } from "./collect-answer.ts";
import { startDrain, type DrainBounds } from "./drain.ts";
import { endingOfError, hasPartial, withPartial, type Ending } from "./ending.ts";
import { Meter } from "./meter.ts";
import { refusalEvent } from "./refusal-event.ts";
import { relay } from "./relay.ts";
import type { Tariff } from "./tariff.ts";

export interface ChatDeps {
  readonly router: Router;
  readonly limiter: Limiter;
  readonly permits: Permits;
  readonly ledger: Ledger;
  readonly dispatch: Dispatch;
  readonly limitsOf: Allowances["limitsOf"];
  readonly tariff: Tariff;
  readonly emit: Emit;
  readonly clock: Clock;
  readonly log: Log;
  /** For accounts that don't say. */
  readonly maxParallel: number;
  /** chat.json_heartbeat. */
  readonly jsonHeartbeat: boolean;
  readonly warnPercent: number;
  /** Of what costs nothing. */
  readonly currency: string;
  /** What becomes of an answer whose client has left; auto: drained where the user has limits of tokens or cost. */
  readonly abortPolicy: "auto" | "drain" | "cancel";
  readonly drainBounds: DrainBounds;
  /** What a user may make providers do for nothing. */
  readonly freeDisconnects: WindowTally;
  /** Bytes of events that may become one JSON. */
  readonly collectLimitBytes: number;
}

export interface Chat {
  /** Serves one chat. Throws AppError where nothing has been sent yet; then the caller answers. */
  handle(call: ChatCall): Promise<void>;
  /** Chats running now. */
  running(): number;
  /** Resolves when no chat runs. */
  whenIdle(): Promise<void>;
  /** Ends all running chats: each gets an error event and is charged for what it was given. */
  cutAll(): void;
}

/** The story of a chat request. Whatever happens in it, it leaves through the same door: settle, release, tell. */
export function createChat(deps: ChatDeps): Chat {
  const options = { clock: deps.clock, warnPercent: deps.warnPercent, isoTime: createIsoTime() };
  const admission = createAdmission({ router: deps.router, pricing: deps.tariff.pricing });
  const runs = new SlotSet<ChatRun>();
  let idleWaiters: (() => void)[] = [];

  async function handle(call: ChatCall): Promise<void> {
    const run = new ChatRun(call, options);
    runs.add(run);
    let ending: Ending;
    try {
      ending = await serve(run);
    } catch (error) {
      ending = endingOfError(error, call.client.departed);
      // Not where it was the proxy that ended it.
      if (error instanceof AbandonedError && ending.outcome === "client_gone")
        await chargeDisconnect(run, error.provider);
    }
    // The charge is final and the permit free before the client hears of the end: its next request finds both so.
    await settle(run, ending);
    runs.delete(run);
    if (runs.size === 0) wakeIdleWaiters();
    answer(run, ending);
  }

  async function serve(run: ChatRun): Promise<Ending> {
    const { account, apiKey, body, shape, ip, client, streamByDefault } = run.call;
    const user = account.username;

    const arrivedAt = deps.clock.now();
    admission.checkScope(apiKey, body.value.model);
    const request = (run.request = shape.parse(body, streamByDefault));
    const limits = deps.limitsOf(account, apiKey);
    const route = admission.routeOf(request, body.value, limits, arrivedAt);

    const max = account.max_parallel ?? deps.maxParallel;
    run.permit = await fromBackend(() => deps.permits.acquire({ user, max }, client));
    const bill = (run.bill = new Bill(deps.tariff, request, route, arrivedAt));
    const ask = {
      user,
      limits,
      // The trace id: one name for a request in the journal, logs, events and the client's X-Request-ID.
      requestId: client.traceId,
      model: request.model,
      apiKey: apiKey?.id,
      upperBound: bill.upperBound(),
    };
    const hold = (run.hold = await fromBackend(() => deps.ledger.reserve(ask)));

    const affordable = limitsCost(limits) && bill.hasOtherCurrencies ? await bill.holdOthers(hold) : route;

    // The last step before sending: what is refused, for whatever reason, takes nothing from the rate that all share.
    const limitAsk = { user, ip, model: request.model, apiKey: apiKey?.id ?? null };
    const refusal = await fromBackend(() => deps.limiter.take(limitAsk));
    if (refusal !== null) throw rateLimited(refusal);

    if (request.stream || deps.jsonHeartbeat) client.startHeartbeat(run, !request.stream);
    const { exchange } = (run.answer = await send(affordable, request, client, limitAsk));

    // The first data event is here, and nobody has seen it yet: now it is charged, then shown.
    if (client.gone) throw new AbandonedError(exchange.provider);
    await fromBackend(() => hold.commit(bill.first(exchange.provider)));
    const limited = limits.some(({ metric }) => deps.tariff.cutMidstream.has(metric));
    const meter = (run.meter = new Meter(hold, bill, limited));
    const ending = request.stream ? await stream(run, exchange, meter) : await collect(run, exchange, meter);
    if (ending.outcome === "client_gone" && drains(limits)) {
      run.drain = startDrain(exchange, deps.drainBounds);
      await run.drain.done;
    }
    return ending;
  }

  async function send(route: Route, request: ChatRequest, client: Client, ask: LimitAsk): Promise<Answer> {
    try {
      return await deps.dispatch(route, request, client, {
        traceId: client.traceId,
        user: ask.user,
      });
    } catch (error) {
      // Nobody could be asked.
      if (error instanceof UpstreamFault && error.attempts === 0) await fromBackend(() => deps.limiter.giveBack(ask));
      throw error;
    }
  }

  function stream(run: ChatRun, exchange: Exchange, meter: Meter): Promise<Ending> {
    const { client } = run.call;
    client.open(run);
    return relay(exchange, client, meter, run.request?.wantsUsageChunk === true);
  }

  async function collect(run: ChatRun, exchange: Exchange, meter: Meter): Promise<Ending> {
    const { client, shape, wantsPartial } = run.call;
    const collector = shape.createCollector();
    const { ending, completion } = await collectAnswer(exchange, client, meter, collector, deps.collectLimitBytes);
    run.completion = completion;
    const fault = ending.error?.extras.cause;
    if (fault instanceof UpstreamFault && fault.facts.kind === "invalid_response") {
      const { upstreamMessage, cause } = fault.facts;
      const facts = { trace_id: client.traceId, provider: exchange.provider.name, upstream_message: upstreamMessage };
      // Names fields, never what stands in them.
      const problem = cause instanceof Error ? cause.message : undefined;
      deps.log.warn({ ...facts, problem }, "an answer could not be made one JSON");
    }
    return wantsPartial ? withPartial(ending, collector) : ending;
  }

  /** Whether an answer whose client has left is followed to its usage: only worth it where tokens are counted. */
  function drains(limits: readonly Limit[]): boolean {
    return deps.abortPolicy === "auto"
      ? limits.some(({ metric }) => metric !== "requests")
      : deps.abortPolicy === "drain";
  }

  /**
   * The client has left before the first event: that is free a few times, and then charged as a first event is, for the
   * provider reads and bills the prompt all the same. Where that can't be recorded, nothing is charged.
   */
  async function chargeDisconnect(run: ChatRun, provider: Provider): Promise<void> {
    const { hold, bill } = run;
    run.abandoned = provider;
    if (hold === null || bill === null || deps.freeDisconnects.take(run.call.account.username)) return;
    try {
      await hold.commit(bill.first(provider));
    } catch (error) {
      deps.log.error({ trace_id: run.call.client.traceId, err: error }, "a client that left could not be charged");
    }
  }

  /** The one exit of the money: exactly once, whatever the ending. */
  async function settle(run: ChatRun, ending: Ending): Promise<void> {
    const { hold, answer } = run;
    const settlement = (run.settlement = settlementOf(run, ending));
    try {
      await hold?.settle(settlement);
    } catch (error) {
      // The first charge stands. Whatever else the chat holds is given back all the same.
      const { outcome, charge } = settlement;
      deps.log.error({ trace_id: run.call.client.traceId, err: error, outcome, charge }, "a charge was not settled");
    }
    run.permit?.release();
    answer?.exchange.cancel();
    const refusal =
      ending.outcome === "refused" && ending.error !== null ? refusalEvent(run, ending.error, deps.clock.now()) : null;
    if (refusal !== null) deps.emit(refusal);
    deps.emit(run.finished(ending));
  }

  function settlementOf(run: ChatRun, { outcome, error }: Ending): Settlement {
    const { hold, bill, answer, abandoned, meter, request } = run;
    if (hold?.committed !== true || bill === null) return nothingOwed(outcome, deps.currency);
    if (abandoned !== null) return bill.promptOnly(outcome);
    if (answer === null) return nothingOwed(outcome, deps.currency);
    if (outcome !== "quota_cut" || meter === null) return bill.settlement(outcome, answer.exchange.reader);
    // Of an answer that was cut, what was shown is owed: for more there was no room, whatever has arrived by then. And
    // who was to get one JSON, and gets an error without the part that there is, was shown nothing: that is free, but
    // not for ever.
    if (request?.stream === true || hasPartial(error)) return bill.settlement(outcome, meter.report());
    const isFree = deps.freeDisconnects.take(run.call.account.username);
    return isFree ? bill.settlement(outcome, meter.report(), false) : bill.promptOnly(outcome);
  }

  /** What the client sees of the ending. */
  function answer(run: ChatRun, ending: Ending): void {
    const { client } = run.call;
    const logged = { trace_id: client.traceId, err: ending.error?.cause };
    // Where the caller answers, it logs as well.
    if (client.opened && ending.error?.code === "internal_error") {
      deps.log.error(logged, "a chat failed for a reason of our own");
    }
    if (ending.error?.code === "storage_unavailable") deps.log.error(logged, "a chat failed because of the storage");
    if (ending.error === null && run.completion !== null) client.sendJson(run.completion, run);
    else if (client.opened) client.finish(ending.error);
    else if (ending.error !== null) {
      client.release();
      throw ending.error;
    } else client.abandon();
  }

  function wakeIdleWaiters(): void {
    const waiters = idleWaiters;
    idleWaiters = [];
    for (const wake of waiters) wake();
  }

  return {
    handle,
    running: () => runs.size,
    whenIdle() {
      if (runs.size === 0) return Promise.resolve();
      return new Promise((resolve) => idleWaiters.push(resolve));
    },
    cutAll() {
      for (const run of runs.items()) {
        run.call.client.depart("shutdown");
        run.drain?.stop();
      }
    },
  };
}

function limitsCost(limits: readonly Limit[]): boolean {
  return limits.some(({ metric }) => metric === "cost");
}

function rateLimited({ rule, retryAfterMs }: LimitRefusal): AppError {
  return new AppError("rate_limited", { retryAfterSeconds: retryAfterMs / 1000, details: { rule } });
}
