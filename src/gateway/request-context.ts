import type { BudgetGuard } from "./budget-guard.ts";
import type { Drain } from "./drain.ts";
import { AppError } from "../errors.ts";
import type { ChatFinished, ProxyEvent } from "../events/catalogue.ts";
import type { ApiFormat, Collector, ParsedRequest } from "./formats/api-format.ts";
import type { Account } from "../identity/account-schema.ts";
import type { Group } from "../identity/groups.ts";
import type { ApiKey } from "../identity/keys/api-key.ts";
import type { Clock } from "../lib/clock.ts";
import { ClientDisconnectedError } from "../lib/disconnect-signal.ts";
import type { JsonObject } from "../lib/json-object.ts";
import type { Slotted } from "../lib/swap-remove-set.ts";
import type { Permit } from "../limits/concurrency.ts";
import type { RateLimitRefusal, RateLimitState, RateTicket } from "../limits/rate-limiter.ts";
import type { GatewayPolicy } from "./policy.ts";
import type { UpstreamResponse } from "../providers/failover.ts";
import type { RequestTrace } from "../providers/attempt-trace.ts";
import type { Provider } from "../providers/provider.ts";
import { UpstreamError } from "../providers/upstream-error.ts";
import type { BucketState, Hold, Settlement } from "../quota/ledger.ts";
import type { Outcome } from "../quota/outcomes.ts";
import { metrics } from "../quota/metrics.ts";
import { quotaDetails } from "../quota/quota-exceeded.ts";
import { addRateHeaders } from "./rate-headers.ts";
import type { RequestCost } from "./request-cost.ts";
import { neutralTrust, type Trust } from "../risk/trust.ts";
import type { DisconnectReason, HeaderSource, ResponseWriter } from "./response-writer.ts";

/** One request to an API, authenticated. */
export interface IncomingRequest {
  /** The policy in force when it arrived; it applies to the end of the request. */
  readonly policy: GatewayPolicy;
  readonly account: Account;
  /** The API key that it came with; null for an access token. */
  readonly apiKey: Pick<ApiKey, "id" | "limits" | "group" | "allowsModel"> | null;
  /** The value of X-Group; null if there is none. */
  readonly groupHeader: string | null;
  /** The client's address. */
  readonly ip: string;
  /** The client program; "" if it names none. */
  readonly clientName: string;
  readonly body: JsonObject;
  readonly format: ApiFormat;
  /** The default for `stream` on this route. */
  readonly streamByDefault: boolean;
  /** Whether a client that gets one JSON wants the part that arrived of a response that broke off. */
  readonly wantsPartial: boolean;
  readonly client: ResponseWriter;
  /** The trace that it belongs to; null: none. */
  readonly trace: GatewayTrace | null;
}

/** Follows one request and its attempts at providers, for the trace that it belongs to. Nothing here throws. */
export interface GatewayTrace extends RequestTrace {
  /** W3C: 32 hex digits. */
  readonly traceId: string;
  /** The request has passed its checks. */
  admitted(request: ParsedRequest, body: JsonObject): void;
  /** It has ended, and is charged. */
  finished(event: ChatFinished): void;
}

interface RunOptions {
  readonly clock: Clock;
  /** As createIsoTime makes it. */
  readonly isoTime: (ms: number) => string;
}

/** Everything that one request holds; the fields are set from top to bottom as it goes through its stages. */
export class RequestContext implements HeaderSource, Slotted {
  slot = -1;
  readonly incoming: IncomingRequest;
  /** The group that it counts for, to its end, whatever is changed meanwhile; null: none. */
  group: Group | null = null;
  /** The multipliers of its user's limits when it arrived. */
  trust: Trust = neutralTrust;
  request: ParsedRequest | null = null;
  permit: Permit | null = null;
  /** ms that it has waited for a permit. */
  queueMs = 0;
  cost: RequestCost | null = null;
  hold: Hold | null = null;
  /** The user's buckets after the last change of the hold. */
  buckets: readonly BucketState[] = [];
  /** What it has taken of the rates; null before. */
  ticket: RateTicket | null = null;
  /** Of the refusals that have kept it from a provider in a failover, the one with the shortest wait. */
  leftOut: RateLimitRefusal | null = null;
  /** Whether a provider may have been sent it. */
  wasSent = false;
  response: UpstreamResponse | null = null;
  /** The provider that was generating when the client disconnected before the first event. */
  abandoned: Provider | null = null;
  guard: BudgetGuard | null = null;
  /** Set while a response is read on after its client has disconnected. */
  drain: Drain | null = null;
  /** The collected JSON, if one was requested and is complete. */
  completion: string | Buffer | null = null;
  settlement: Settlement | null = null;
  readonly #options: RunOptions;
  readonly #startedAt: number;
  #waitingSince: number | null = null;

  constructor(call: IncomingRequest, options: RunOptions) {
    this.incoming = call;
    this.#options = options;
    this.#startedAt = options.clock.monotonic();
  }

  /** It waits for a permit from now on. */
  startWaiting(): void {
    this.#waitingSince = this.#options.clock.monotonic();
  }

  /** Whether it waits for a permit. */
  get isWaiting(): boolean {
    return this.#waitingSince !== null;
  }

  /** It waits no longer; does nothing if it didn't. */
  stopWaiting(): void {
    if (this.#waitingSince === null) return;
    this.queueMs = this.#options.clock.monotonic() - this.#waitingSince;
    this.#waitingSince = null;
  }

  /** Adds the X-Quota headers, as of the last change of the hold, and those of the rates, as of the take. */
  addHeaders(to: string[]): void {
    const { isoTime } = this.#options;
    addQuotaHeaders(to, this.buckets, this.incoming.policy.warnPercent, isoTime);
    if (this.ticket !== null) this.#addRates(to, this.ticket.states, null);
  }

  /** The headers of a request that the rates refuse. */
  refusedRates({ states, retryAfterMs }: RateLimitRefusal): Record<string, string> {
    const list: string[] = [];
    this.#addRates(list, states, retryAfterMs);
    const headers: Record<string, string> = {};
    for (let at = 0; at < list.length; at += 2) headers[list[at] ?? ""] = list[at + 1] ?? "";
    return headers;
  }

  #addRates(to: string[], states: readonly RateLimitState[], retryAfterMs: number | null): void {
    const { clock, isoTime } = this.#options;
    const style = this.request?.api === "messages" ? "anthropic" : "openai";
    addRateHeaders(to, states, { style, now: clock.now(), isoTime, retryAfterMs });
  }

  /** The one event that reports this request. */
  finished(end: RequestEnd): ChatFinished {
    this.stopWaiting();
    const { account, ip, client } = this.incoming;
    const { request, response, settlement } = this;
    const { clock } = this.#options;
    const cause = end.error?.extras.cause;
    const error = cause instanceof UpstreamError ? cause : null;
    const charge = settlement?.charge;
    const usage = settlement?.usage;
    return {
      type: "chat.finished",
      at: clock.now(),
      traceId: client.traceId,
      w3cTraceId: this.incoming.trace?.traceId,
      ip,
      user: account.username,
      keyId: this.incoming.apiKey?.id ?? "",
      client: this.incoming.clientName,
      group: this.group?.name ?? "",
      api: request?.api ?? "",
      model: request?.model ?? "",
      provider: (response?.attempt.provider ?? this.abandoned)?.name ?? error?.provider ?? "",
      stream: request?.stream ?? this.incoming.streamByDefault,
      outcome: end.outcome,
      code: end.error?.code ?? (end.outcome === "completed" ? "ok" : end.outcome),
      refusedBy: end.error === null ? "" : limitOf(end.error),
      status: client.opened ? 200 : (end.error?.status ?? (end.outcome === "completed" ? 200 : 0)),
      requests: charge?.requests ?? 0,
      inputTokens: usage?.input ?? 0,
      cachedTokens: usage?.cached ?? 0,
      outputTokens: usage?.output ?? 0,
      reasoningTokens: usage?.reasoning ?? 0,
      cost: charge?.cost ?? 0,
      currency: charge?.currency ?? "",
      estimated: settlement?.estimated ?? false,
      firstEventMs: response?.attempt.firstEventMs ?? null,
      generationMs: response?.attempt.generationMs() ?? null,
      durationMs: clock.monotonic() - this.#startedAt,
      queueMs: this.queueMs,
      retries: response?.retries ?? Math.max(0, (error?.attempts ?? 0) - 1),
    };
  }
}

/** The extra event for a refusal by a limit or a quota, which operators count separately; null for any other error. */
export function refusalEvent(context: RequestContext, error: AppError, at: number): ProxyEvent | null {
  const { account, ip, client, trace } = context.incoming;
  const base = { at, traceId: client.traceId, w3cTraceId: trace?.traceId, ip, user: account.username };
  const { details = {} } = error.extras;
  const { code } = error;
  if (code === "quota_exceeded") {
    return { type: "quota.exceeded", ...base, metric: String(details.metric), per: String(details.per) };
  }
  if (code === "rate_limited" || code === "concurrency_exceeded")
    return { type: "rate_limit.rejected", ...base, rule: limitOf(error) };
  return null;
}

/** The limit that an error is about, as ChatFinished names it; "" if it is about none. */
function limitOf({ code, extras: { details = {} } }: AppError): string {
  if (code === "rate_limited") return String(details.rule);
  if (code === "quota_exceeded") return details.group === undefined ? "user quota" : "group quota";
  if (code !== "concurrency_exceeded") return "";
  const { scope = "user" } = details;
  return scope === "user" ? "concurrency" : `concurrency_${String(scope)}`;
}

/**
 * Adds headers for the bucket with the least left: X-Quota-Remaining, X-Quota-Reset (ISO 8601, absent if the bucket
 * never resets) and, from `warnPercent` of use, X-Quota-Warning. Costs are in units of their currency.
 * @param to names and values in turn
 */
function addQuotaHeaders(
  to: string[],
  buckets: readonly BucketState[],
  warnPercent: number,
  isoTime: (ms: number) => string,
): void {
  let tightest: BucketState | null = null;
  let highest = -1;
  for (const bucket of buckets) {
    const share = shareUsed(bucket);
    if (share > highest) {
      highest = share;
      tightest = bucket;
    }
  }
  if (tightest === null) return;
  const { limit, remaining, resetAt } = tightest;
  to.push("x-quota-remaining", String(metrics[limit.metric].format(remaining)));
  if (resetAt !== null) to.push("x-quota-reset", isoTime(resetAt));
  const percent = Math.floor(highest * 100);
  if (percent >= warnPercent) to.push("x-quota-warning", `${percent}% of ${limit.metric} per ${limit.per} used`);
}

function shareUsed({ limit, remaining }: BucketState): number {
  return limit.max === 0 ? 1 : (limit.max - remaining) / limit.max;
}

/** The largest partial response that is sent with an error, in characters of JSON. */
const maxPartial = 4 << 20;

/** How a request ended: the outcome for the ledger, and the error for the client. */
export interface RequestEnd {
  readonly outcome: Outcome;
  /** null if the response is complete or the client has gone. */
  readonly error: AppError | null;
}

export const completed: RequestEnd = { outcome: "completed", error: null };

/** The provider failed or broke off. */
export function endOfUpstreamError(error: UpstreamError): RequestEnd {
  return { outcome: "upstream_failed", error: error.toAppError() };
}

/** The response broke off because the client was slow to read it: that does not count against the provider. */
export function endOfSlowReader(error: UpstreamError): RequestEnd {
  return { outcome: "reader_stalled", error: error.toAppError() };
}

/** Adds the part of the response that arrived as `details.partial`; null if it is too large to be sent. */
export function withPartial(end: RequestEnd, collector: Collector): RequestEnd {
  if (end.error === null) return end;
  const { code, message, extras } = end.error;
  const details = { ...extras.details, partial: partialOf(collector) };
  return { ...end, error: new AppError(code, { ...extras, message, details }) };
}

/** Whether the error holds the part of the response that arrived. */
export function hasPartial(error: AppError | null): boolean {
  const partial = error?.extras.details?.partial;
  return partial !== undefined && partial !== null;
}

function partialOf(collector: Collector): unknown {
  try {
    const partial = collector.partial();
    return partial === null || partial.length > maxPartial ? null : JSON.parse(partial);
  } catch {
    // JSON.parse accepts nesting that overflows JSON.stringify.
    return null;
  }
}

/** The request ended on our side: the client disconnected or stopped reading, or the proxy is shutting down. */
export function endOfDisconnect(reason: DisconnectReason): RequestEnd {
  return {
    outcome: reason,
    error: reason === "shutdown" ? new AppError("shutting_down", { retryAfterSeconds: 1 }) : null,
  };
}

/** The user's budget ran out in mid-stream. */
export function endOfBudget({ blocked }: BudgetGuard): RequestEnd {
  const details = blocked === null ? {} : { details: quotaDetails(blocked) };
  return { outcome: "quota_cut", error: new AppError("quota_exceeded_midstream", details) };
}

/**
 * The end of a request in which a stage threw.
 * @param reason why the client is gone; null if it is not
 */
export function endOfError(error: unknown, reason: DisconnectReason | null): RequestEnd {
  if (error instanceof ClientDisconnectedError && reason !== null) return endOfDisconnect(reason);
  if (error instanceof UpstreamError) return endOfUpstreamError(error);
  if (error instanceof AppError) return { outcome: "refused", error };
  return { outcome: "upstream_failed", error: new AppError("internal_error", { cause: error }) };
}
