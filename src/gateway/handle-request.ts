import type { Account } from "../identity/account-schema.ts";
import type { Emit } from "../events/catalogue.ts";
import type { Groups } from "../identity/groups.ts";
import type { Users } from "../identity/users.ts";
import type { Clock } from "../lib/clock.ts";
import { orElse } from "../lib/awaitable.ts";
import { createIsoTime } from "../lib/dates.ts";
import type { Log } from "../lib/log.ts";
import type { RateLimiter } from "../limits/rate-limiter.ts";
import type { ConcurrencyLimiter, Waiting } from "../limits/concurrency.ts";
import type { Ledger, QuotaLimit, Settlement } from "../quota/ledger.ts";
import { metrics } from "../quota/metrics.ts";
import { createScaleLimits } from "../quota/scaled-limits.ts";
import { AbandonedError, type UpstreamResponse, type Failover } from "../providers/failover.ts";
import type { Attempt } from "../providers/attempt.ts";
import { UpstreamError } from "../providers/upstream-error.ts";
import type { Provider } from "../providers/provider.ts";
import type { Route } from "../providers/router.ts";
import { createAdmit, placeTaker, rateLimited, useOf } from "./admit.ts";
import { RequestCost, nothingOwed } from "./request-cost.ts";
import type { ParsedRequest } from "./formats/api-format.ts";
import {
  endOfError,
  hasPartial,
  type IncomingRequest,
  refusalEvent,
  RequestContext,
  type RequestEnd,
  withPartial,
} from "./request-context.ts";
import { chooseGroup } from "./choose-group.ts";
import { collectResponse } from "./collect.ts";
import { startDrain } from "./drain.ts";
import { BudgetGuard } from "./budget-guard.ts";
import { relay } from "./relay.ts";
import { createRunningRequests, type RunningRequests } from "./running-requests.ts";
import { neutralTrust, type Trust } from "../risk/trust.ts";
import type { GatewayPolicy } from "./policy.ts";

export interface GatewayOptions {
  readonly rateLimiter: RateLimiter;
  readonly concurrency: ConcurrencyLimiter;
  readonly ledger: Ledger;
  readonly groups: Pick<Groups, "get" | "ofUser">;
  readonly users: Pick<Users, "get">;
  /** The policy in force. */
  readonly policy: () => Pick<GatewayPolicy, "permitRules">;
  readonly failover: Failover;
  readonly emit: Emit;
  /** The multipliers of a user's limits. Absent: neutral. */
  readonly trustOf?: (account: Account) => Trust;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Gateway extends Pick<RunningRequests<RequestContext>, "whenIdle" | "whenRunningEnd"> {
  /** Handles one request. Throws AppError if nothing has been sent yet; the caller then sends the error. */
  handle(call: IncomingRequest): Promise<void>;
  /** How many requests are in progress. */
  running(): number;
  /** Ends all requests in progress: each client gets an error event and is charged for what it has received. */
  cutAll(): void;
}

/**
 * The stages of a request, in order. Every request ends the same way: settle the charge, release the permit, emit one
 * event.
 */
export function createGateway(deps: GatewayOptions): Gateway {
  const options = { clock: deps.clock, isoTime: createIsoTime() };
  const scaleLimits = createScaleLimits();
  const trustOf = deps.trustOf ?? (() => neutralTrust);
  const admit = createAdmit({ ...deps, trustOf, permitRules: () => deps.policy().permitRules });
  const running = createRunningRequests<RequestContext>();

  async function handle(call: IncomingRequest): Promise<void> {
    const context = new RequestContext(call, options);
    running.add(context);
    let end: RequestEnd;
    try {
      end = await serve(context);
    } catch (error) {
      end = endOfError(error, call.client.disconnectReason);
      // A request that the proxy itself ended is not charged.
      if (error instanceof AbandonedError && end.outcome === "client_gone")
        await chargeDisconnect(context, error.provider);
    }
    end = presented(end, context);
    // Settles the charge and releases the permit before the client sees the end: its next request must find both done.
    await settle(context, end);
    running.delete(context);
    respond(context, end);
  }

  async function serve(context: RequestContext): Promise<RequestEnd> {
    const { policy, account, apiKey, body, format, client, streamByDefault } = context.incoming;
    const { admission, pricingPolicy } = policy;
    const arrivedAt = deps.clock.now();
    context.trust = trustOf(account);
    const chosen = chooseGroup(context.incoming, deps.groups);
    const group = (context.group = chosen instanceof Promise ? await chosen : chosen);
    admission.checkModel({ apiKey, account, group }, body.value.model);
    const request = (context.request = format.parse(body, streamByDefault));
    const limits = scaleLimits(policy.limitsOf(account, apiKey, group), context.trust.quota);
    const route = admission.routeOf(request, body.value, limits, arrivedAt);

    const onWaiting = (now: () => Waiting): void => {
      context.startWaiting();
      const { noticeAfterMs } = policy.permitRules;
      if (request.stream && noticeAfterMs > 0)
        client.startNotice(context, format.startStream(request.model, arrivedAt), noticeAfterMs, now);
    };
    const cost = (context.cost = new RequestCost(pricingPolicy, request, route, arrivedAt));
    // A permit, a hold on the quota, and a ticket of the rates: all three or none.
    const { hold, route: admitted } = await admit(context, { route, cost, limits, onWaiting });

    if (request.stream || policy.jsonHeartbeat) {
      client.startHeartbeat(context, request.stream ? format.startStream(request.model, arrivedAt) : null);
    }
    const { attempt } = (context.response = await send(context, admitted, request));

    // The first data event is here and has not been sent yet: it is charged first, then sent.
    if (client.gone) throw new AbandonedError(attempt.provider);
    context.buckets = await cost.commit(hold, attempt.provider);
    const limited = limits.some(({ metric }) => pricingPolicy.cutMidstream.has(metric));
    const guard = (context.guard = new BudgetGuard(hold, cost, limited));
    const end = request.stream ? await stream(context, attempt, guard) : await collect(context, attempt, guard);
    if (end.outcome === "client_gone" && drains(policy, limits)) {
      context.drain = startDrain(attempt, policy.drainBounds);
      await context.drain.done;
    }
    return end;
  }

  async function send(context: RequestContext, route: Route, request: ParsedRequest): Promise<UpstreamResponse> {
    const { account, body, client, policy, trace } = context.incoming;
    context.wasSent = true;
    trace?.admitted(request, body);
    try {
      const takePlace = placeTaker(context);
      const { username: user } = account;
      const { traceId } = client;
      const requester = { traceId, user, retry: policy.retry, body: body.value, trace, takePlace };
      return await deps.failover(route, request, client, requester);
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error;
      if (error.attempts === 0) context.wasSent = false;
      const { leftOut } = context;
      // Another provider could have been tried, but for its rates: the client may come back when they have room.
      if (leftOut !== null && (error.attempts === 0 || error.rule.retry !== "never"))
        throw rateLimited(leftOut, context.refusedRates(leftOut));
      throw error;
    }
  }

  function stream(context: RequestContext, attempt: Attempt, guard: BudgetGuard): Promise<RequestEnd> {
    const { client } = context.incoming;
    client.open(context);
    return relay(attempt, client, guard, context.request?.wantsUsageChunk === true);
  }

  async function collect(context: RequestContext, attempt: Attempt, guard: BudgetGuard): Promise<RequestEnd> {
    const { policy, client, format, wantsPartial } = context.incoming;
    const collector = format.createCollector();
    const { end, completion } = await collectResponse(attempt, client, guard, collector, policy.collectLimitBytes);
    context.completion = completion;
    const error = end.error?.extras.cause;
    if (error instanceof UpstreamError && error.facts.kind === "invalid_response") {
      const { upstreamMessage, cause } = error.facts;
      const facts = { trace_id: client.traceId, provider: attempt.provider.name, upstream_message: upstreamMessage };
      // The message names fields, never their values.
      const problem = cause instanceof Error ? cause.message : undefined;
      deps.log.warn({ ...facts, problem }, "a response could not be made one JSON");
    }
    return wantsPartial ? withPartial(end, collector) : end;
  }

  /** Whether to read on to the usage report after the client has disconnected: only useful if tokens are counted. */
  function drains({ abortPolicy }: GatewayPolicy, limits: readonly QuotaLimit[]): boolean {
    return abortPolicy === "auto"
      ? limits.some(({ metric }) => metrics[metric].growsMidstream)
      : abortPolicy === "drain";
  }

  /**
   * The client disconnected before the first event. A few such disconnects are free; more are charged like a first
   * event, because the provider reads and bills the prompt all the same. If the charge can't be recorded, it is
   * dropped.
   */
  async function chargeDisconnect(context: RequestContext, provider: Provider): Promise<void> {
    const { hold, cost } = context;
    context.abandoned = provider;
    if (hold === null || cost === null) return;
    try {
      if (await takeFreeDisconnect(context)) return;
      await cost.commit(hold, provider);
    } catch (error) {
      deps.log.error({ trace_id: context.incoming.client.traceId, err: error }, "a disconnect could not be charged");
    }
  }

  /** Whether it is free that a user doesn't get what was generated; only a few times an hour are. */
  async function takeFreeDisconnect({ incoming }: RequestContext): Promise<boolean> {
    const { account, client, policy } = incoming;
    const request = { user: account.username, requestId: client.traceId, max: policy.freeDisconnects };
    return deps.rateLimiter.takeFreeDisconnect(request);
  }

  /** Settles the charge exactly once, whatever the outcome. */
  async function settle(context: RequestContext, end: RequestEnd): Promise<void> {
    const { hold, ticket, permit, response } = context;
    const traceId = context.incoming.client.traceId;
    const settlement = (context.settlement = await settlementOf(context, end));
    const failed = (message: string, facts: object = {}) => {
      return (error: unknown) => {
        deps.log.error({ trace_id: traceId, err: error, ...facts }, message);
        return undefined;
      };
    };
    const { outcome, charge } = settlement;
    // The first charge stands where this fails. Everything else that the request holds is released all the same.
    const settling = orElse(() => hold?.settle(settlement), failed("a charge was not settled", { outcome, charge }));
    // Before the permit is released: whoever gets it next finds the corrected rates.
    const correcting = orElse(
      () => ticket?.settle(useOf(context, settlement)),
      failed("the rates of a request were not corrected"),
    );
    response?.attempt.cancel();
    const releasing = orElse(() => permit?.release(), failed("a permit was not released"));
    // Behind a network all three are on their way by now.
    const buckets = settling instanceof Promise ? await settling : settling;
    if (buckets !== undefined) context.buckets = buckets;
    if (correcting instanceof Promise) await correcting;
    if (releasing instanceof Promise) await releasing;
    const refusal =
      end.outcome === "refused" && end.error !== null ? refusalEvent(context, end.error, deps.clock.now()) : null;
    if (refusal !== null) deps.emit(refusal);
    const finished = context.finished(end);
    context.incoming.trace?.finished(finished);
    deps.emit(finished);
  }

  async function settlementOf(context: RequestContext, { outcome, error }: RequestEnd): Promise<Settlement> {
    const { hold, cost, response, abandoned, guard, request } = context;
    if (hold?.committed !== true || cost === null) return nothingOwed(outcome, context.incoming.policy.currency);
    if (abandoned !== null) return cost.promptOnly(outcome);
    if (response === null) return nothingOwed(outcome, context.incoming.policy.currency);
    if (outcome !== "quota_cut" || guard === null) return cost.settlement(outcome, response.attempt.reader);
    // Of a response that was cut, only the part that was shown is charged, since there was no room for more, even if
    // more had arrived. A client that expected one JSON and gets an error without the partial response was shown
    // nothing: that is free, but only a few times.
    if (request?.stream === true || hasPartial(error)) return cost.settlement(outcome, guard.report());
    const isFree = await takeFreeDisconnect(context).catch(() => true);
    return isFree ? cost.settlement(outcome, guard.report(), false) : cost.promptOnly(outcome);
  }

  /** Sends the client the end of its response. */
  function respond(context: RequestContext, end: RequestEnd): void {
    const { client } = context.incoming;
    const logged = { trace_id: client.traceId, err: end.error?.cause };
    // If the caller sends the error, it logs it as well.
    if (client.opened && end.error?.code === "internal_error") {
      deps.log.error(logged, "a request failed with an internal error");
    }
    if (end.error?.code === "storage_unavailable")
      deps.log.error(logged, "a request failed because the storage is unavailable");
    if (end.error === null && context.completion !== null) client.sendJson(context.completion, context);
    else if (client.opened) client.finish(end.error);
    else if (end.error !== null) {
      client.release();
      throw end.error;
    } else client.abandon();
  }

  return {
    handle,
    running: () => running.count(),
    whenIdle: () => running.whenIdle(),
    whenRunningEnd: () => running.whenRunningEnd(),
    cutAll() {
      for (const context of running.all()) {
        context.incoming.client.disconnect("shutdown");
        context.drain?.stop();
      }
    },
  };
}

/** The end in the form that clients of the API expect. Opens the stream if the error has to be an event. */
function presented(end: RequestEnd, context: RequestContext): RequestEnd {
  if (end.error === null) return end;
  const { format, client } = context.incoming;
  const error = format.adaptError?.(end.error) ?? end.error;
  if (context.request?.stream === true && format.failsAsStream?.(error) === true) client.open(context);
  return error === end.error ? end : { ...end, error };
}
