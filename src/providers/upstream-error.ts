import { AppError, type ErrorCode, type ErrorExtras } from "../errors.ts";

/** The kinds of upstream errors, as metrics, logs and the retry rule name them. A closed set. */
export type UpstreamErrorKind =
  | "rate_limited"
  | "overloaded"
  | "timeout"
  | "network"
  | "server_error"
  | "invalid_response"
  | "truncated"
  | "unsupported"
  | "content_refused"
  | "bad_request"
  | "forbidden"
  | "model_unknown"
  | "key_refused"
  | "no_balance"
  | "proxy_overloaded"
  | "unavailable";

/** The circuit that an error counts for: one model of an account, the whole account, or none. */
export type ErrorSubject = "model" | "account" | "nobody";

interface UpstreamErrorRule {
  /** The error code for the client. */
  readonly code: ErrorCode;
  /** Where to retry: nowhere, only elsewhere, or after a pause at the same account as well. */
  readonly retry: "never" | "elsewhere" | "again";
  /** Whether the error concerns only this key, so that another key of the provider may work, or the whole provider. */
  readonly scope: "key" | "provider";
  /** Whether it counts against the provider; client errors and errors of this machine never do. */
  readonly countsAgainstProvider: boolean;
  /** Whether it is a client error; the client then gets the provider's message. */
  readonly isClientError: boolean;
  /** Whether the operator has to do something. */
  readonly alert: boolean;
}

const providerError = { countsAgainstProvider: true, isClientError: false, alert: false };
const clientError = { countsAgainstProvider: false, isClientError: true, alert: false };
const localError = { countsAgainstProvider: false, isClientError: false, alert: false };

const rules: Readonly<Record<UpstreamErrorKind, UpstreamErrorRule>> = {
  rate_limited: { code: "upstream_rate_limited", retry: "again", scope: "key", ...providerError },
  overloaded: { code: "upstream_overloaded", retry: "again", scope: "provider", ...providerError },
  // The client has waited long enough; a retry at the same provider could double the time.
  timeout: { code: "upstream_timeout", retry: "elsewhere", scope: "provider", ...providerError },
  network: { code: "upstream_error", retry: "again", scope: "provider", ...providerError },
  server_error: { code: "upstream_error", retry: "again", scope: "provider", ...providerError },
  invalid_response: { code: "upstream_invalid_response", retry: "again", scope: "provider", ...providerError },
  truncated: { code: "upstream_truncated", retry: "again", scope: "provider", ...providerError },
  // A wrong path in base_url, or an API that the provider doesn't have: a retry would get the same.
  unsupported: { code: "upstream_error", retry: "elsewhere", scope: "provider", ...providerError },
  content_refused: { code: "content_refused", retry: "never", scope: "provider", ...clientError },
  bad_request: { code: "upstream_rejected", retry: "never", scope: "provider", ...clientError },
  forbidden: { code: "upstream_forbidden", retry: "never", scope: "provider", ...clientError },
  model_unknown: { code: "model_not_found", retry: "elsewhere", scope: "provider", ...clientError },
  // Our key or balance is the problem, not the client's. So the client gets 503, never 401 or 402.
  key_refused: { code: "upstream_unavailable", retry: "elsewhere", scope: "key", ...providerError, alert: true },
  no_balance: { code: "upstream_unavailable", retry: "elsewhere", scope: "key", ...providerError, alert: true },
  // This machine has no descriptors, ports or memory left; another provider can't change that.
  proxy_overloaded: { code: "proxy_overloaded", retry: "again", scope: "provider", ...localError },
  // No attempt was made: all candidates are unavailable.
  unavailable: { code: "upstream_unavailable", retry: "never", scope: "provider", ...localError },
};

/** Statuses that are passed on to the client unchanged, because SDKs handle them specifically. */
const keptStatuses: ReadonlySet<number> = new Set([404, 413, 422]);

/** Error codes that come with a Retry-After. */
const codesWithRetryAfter: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "upstream_rate_limited",
  "upstream_overloaded",
  "upstream_unavailable",
  "proxy_overloaded",
]);

/** How far a response had come when it failed; "connect" only if no connection could be made. */
export type UpstreamStage = "connect" | "first_byte" | "first_event" | "streaming" | "total";

/** The other fields of a provider's error, safe to show: without secrets and limited in length. */
interface UpstreamFields {
  /** "" if it has none. */
  readonly code: string;
  readonly param: string;
  readonly others: Readonly<Record<string, unknown>>;
}

/** Status and headers of a failed response, for the log. */
export interface ResponseHead {
  /** HTTP status. */
  readonly status: number;
  readonly contentType?: string | undefined;
  readonly contentEncoding?: string | undefined;
  readonly location?: string | undefined;
}

export interface UpstreamErrorFacts {
  readonly kind: UpstreamErrorKind;
  readonly stage: UpstreamStage;
  /** The provider's HTTP status, or the one in its error event; absent if there was none. */
  readonly status?: number;
  /** The provider's message, or ours about its response. For the log; the client gets it if the error is its own. */
  readonly upstreamMessage?: string;
  readonly upstream?: UpstreamFields;
  /** The provider's Retry-After, in ms. */
  readonly retryAfterMs?: number;
  /** Whether a retry at the same provider could only fail again. */
  readonly isPermanent?: boolean;
  /** Whether the provider rejected the request because of its `stream_options`. */
  readonly namesStreamOptions?: boolean;
  /** Whether the provider rejected the request because it asks for a stream. */
  readonly namesStream?: boolean;
  /** Whether a connection that had been used before ended before anything of the response came. */
  readonly isStale?: boolean;
  readonly cause?: unknown;
}

/** A provider failed to respond, or its response broke off. */
export class UpstreamError extends Error {
  override readonly name = "UpstreamError";
  readonly facts: UpstreamErrorFacts;
  readonly rule: UpstreamErrorRule;
  /** Attempts made when the proxy gave up. Set by failover. */
  attempts = 0;
  /** Name of the provider that failed; "" without any attempt. Set by failover. */
  provider = "";
  /** Whether it concerns a key that has been replaced since the request was sent. Set by the attempt. */
  isOutdated = false;
  /** Status and headers of the response; null if there was none. Set by the attempt. */
  head: ResponseHead | null = null;

  constructor(facts: UpstreamErrorFacts) {
    super(`${facts.kind} at ${facts.stage}`, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.facts = facts;
    const rule = rules[facts.kind];
    this.rule = facts.isPermanent === true && rule.retry === "again" ? { ...rule, retry: "elsewhere" } : rule;
  }

  /** The circuit that it counts for. */
  get subject(): ErrorSubject {
    const { kind, stage } = this.facts;
    if (!this.rule.countsAgainstProvider) return "nobody";
    if (kind === "key_refused" || kind === "no_balance" || stage === "connect") return "account";
    // A provider that rate limits us works, and its Retry-After needs no circuit. The total time may have run out
    // because of other providers or a long response.
    return kind === "rate_limited" || stage === "total" ? "nobody" : "model";
  }

  /** The error for the client. The provider's message is passed on only if it is about the client's request. */
  toAppError(): AppError {
    const { kind, retryAfterMs } = this.facts;
    return new AppError(this.rule.code, {
      ...(this.rule.isClientError ? this.#clientErrorExtras() : {}),
      ...(codesWithRetryAfter.has(this.rule.code) ? { retryAfterSeconds: (retryAfterMs ?? 1000) / 1000 } : {}),
      ...(kind === "model_unknown" ? { param: "model" } : {}),
      // Retries by the SDK would multiply the attempts already made.
      ...(this.attempts > 1 ? { shouldRetry: false } : {}),
      cause: this,
    });
  }

  /** Code, param and message where SDKs read them, since programs act on them; the rest under `details.upstream`. */
  #clientErrorExtras(): ErrorExtras {
    const { kind, status, upstreamMessage: message = "", upstream } = this.facts;
    const { code, param, others } = upstream ?? { code: "", param: "", others: {} };
    // For this kind clients rely on our own code.
    const own = kind === "model_unknown";
    const details = own && code !== "" ? { code, ...others } : others;
    return {
      ...(message === "" ? {} : { message }),
      ...(code === "" || own ? {} : { shownCode: code }),
      ...(param === "" ? {} : { param }),
      ...(kind === "bad_request" && status !== undefined && keptStatuses.has(status) ? { status } : {}),
      ...(Object.keys(details).length === 0 ? {} : { details: { upstream: details } }),
    };
  }
}

/**
 * This machine has no descriptors, ports, memory or buffers left (errno(3)) or blocks outgoing connections, or the
 * proxy is closing its connections: not the provider's doing.
 */
const localCodes: ReadonlySet<string> = new Set([
  "EMFILE",
  "ENFILE",
  "EADDRNOTAVAIL",
  "EADDRINUSE",
  "ENOMEM",
  "ENOBUFS",
  "EAI_MEMORY",
  "EACCES",
  "EPERM",
  "ENETDOWN",
  "UND_ERR_DESTROYED",
  "UND_ERR_CLOSED",
]);
/** Local only if all of a provider's addresses fail with it: this machine may have no IPv6. */
const unreachable = "ENETUNREACH";

/**
 * A connection that had been used before has ended, and nothing was received since the last request was written to it.
 * A provider closes idle connections: most likely it did so while the request was on its way.
 */
export class StaleConnectionError extends Error {
  override readonly name = "StaleConnectionError";
}

/** The error of a response whose connection failed at this stage. */
export function connectionError(cause: Error, stage: UpstreamStage): UpstreamError {
  const isStale = stage === "first_byte" && cause instanceof StaleConnectionError;
  return new UpstreamError({ kind: kindOfConnectionError(cause), stage, ...(isStale ? { isStale } : {}), cause });
}

/**
 * Classifies a connection error. The code may be on the error, on its cause, or, if several addresses were tried, on
 * any of its errors.
 */
export function kindOfConnectionError(error: Error): "timeout" | "network" | "proxy_overloaded" {
  const tried: readonly unknown[] = error instanceof AggregateError ? error.errors.slice(0, 10) : [error];
  const codes = [...tried, error.cause].map(codeOf).filter((code) => code !== "");
  if (codes.some((code) => localCodes.has(code))) return "proxy_overloaded";
  if (codes.length > 0 && codes.every((code) => code === unreachable)) return "proxy_overloaded";
  return codeOf(error) === "UND_ERR_CONNECT_TIMEOUT" ? "timeout" : "network";
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
