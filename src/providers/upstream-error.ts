import { AppError, type ErrorCode, type ErrorExtras } from "../errors.ts";

/** What went wrong with a provider, in the words that metrics, logs and the retry rule use. A closed set. */
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

/** Whose health a fault speaks against: one model of an account, the account with its connections, or nobody's. */
export type ErrorSubject = "model" | "account" | "nobody";

interface UpstreamErrorRule {
  /** What the client is told. */
  readonly code: ErrorCode;
  /** Who may be asked next: nobody, only others, or after a pause the same account as well. */
  readonly retry: "never" | "elsewhere" | "again";
  /** Whom the fault concerns: this key, and another of the same provider may do better, or the whole provider. */
  readonly scope: "key" | "provider";
  /** Whether the provider is to blame; the client's own mistakes and our own troubles never count against it. */
  readonly countsAgainstProvider: boolean;
  /** Whether the fault is the client's, who then gets the provider's words. */
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
  // A client has waited long enough then; to ask the same provider again would double it.
  timeout: { code: "upstream_timeout", retry: "elsewhere", scope: "provider", ...providerError },
  network: { code: "upstream_error", retry: "again", scope: "provider", ...providerError },
  server_error: { code: "upstream_error", retry: "again", scope: "provider", ...providerError },
  invalid_response: { code: "upstream_invalid_response", retry: "again", scope: "provider", ...providerError },
  truncated: { code: "upstream_truncated", retry: "again", scope: "provider", ...providerError },
  // A wrong path in base_url, or an API that the provider doesn't have: it will say the same next time.
  unsupported: { code: "upstream_error", retry: "elsewhere", scope: "provider", ...providerError },
  content_refused: { code: "content_refused", retry: "never", scope: "provider", ...clientError },
  bad_request: { code: "upstream_rejected", retry: "never", scope: "provider", ...clientError },
  forbidden: { code: "upstream_forbidden", retry: "never", scope: "provider", ...clientError },
  model_unknown: { code: "model_not_found", retry: "elsewhere", scope: "provider", ...clientError },
  // The client's own key and balance are fine; ours are not. So it is told 503, never 401 or 402.
  key_refused: { code: "upstream_unavailable", retry: "elsewhere", scope: "key", ...providerError, alert: true },
  no_balance: { code: "upstream_unavailable", retry: "elsewhere", scope: "key", ...providerError, alert: true },
  // This machine has no descriptors, ports or memory left; with another provider it would have no more of them.
  proxy_overloaded: { code: "proxy_overloaded", retry: "again", scope: "provider", ...localError },
  // Nobody was asked: all that could be are out of service.
  unavailable: { code: "upstream_unavailable", retry: "never", scope: "provider", ...localError },
};

/** Statuses of the provider's that a client gets as they are: its SDK knows what to do about them. */
const keptStatuses: ReadonlySet<number> = new Set([404, 413, 422]);

/** Errors that say when to come back. */
const codesWithRetryAfter: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "upstream_rate_limited",
  "upstream_overloaded",
  "upstream_unavailable",
  "proxy_overloaded",
]);

/** Where an answer stood when it failed; "connect" only where no connection could be made. */
export type UpstreamStage = "connect" | "first_byte" | "first_event" | "streaming" | "total";

/** What a provider says of an error beside its message, fit to be shown: without secrets, and cut to a length. */
interface UpstreamFields {
  /** "" where it says none. */
  readonly code: string;
  readonly param: string;
  readonly others: Readonly<Record<string, unknown>>;
}

/** How an answer began that came to nothing, for the log. */
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
  /** The provider's HTTP status, or the one that its error event named; absent where there was none. */
  readonly status?: number;
  /** The provider's own words, or ours about its answer. For the log; shown to the client where the fault is its own. */
  readonly upstreamMessage?: string;
  readonly upstream?: UpstreamFields;
  /** How long the provider asked to be left alone, in ms. */
  readonly retryAfterMs?: number;
  /** Whether the same provider could only answer the same again. */
  readonly isPermanent?: boolean;
  /** Whether it refuses the request for its `stream_options`. */
  readonly namesStreamOptions?: boolean;
  readonly cause?: unknown;
}

/** A provider failed to answer, or broke off. */
export class UpstreamError extends Error {
  override readonly name = "UpstreamError";
  readonly facts: UpstreamErrorFacts;
  readonly rule: UpstreamErrorRule;
  /** How often providers had been asked when the proxy gave up; set by dispatch. */
  attempts = 0;
  /** The provider that failed, by name; "" where none was asked. Set by dispatch. */
  provider = "";
  /** Whether it is about a key that has been replaced since it was sent. Set by the attempt. */
  isOutdated = false;
  /** How the answer began; null where none did. Set by the attempt. */
  head: ResponseHead | null = null;

  constructor(facts: UpstreamErrorFacts) {
    super(`${facts.kind} at ${facts.stage}`, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.facts = facts;
    const rule = rules[facts.kind];
    this.rule = facts.isPermanent === true && rule.retry === "again" ? { ...rule, retry: "elsewhere" } : rule;
  }

  /** Whose circuit it counts for. */
  get subject(): ErrorSubject {
    const { kind, stage } = this.facts;
    if (!this.rule.countsAgainstProvider) return "nobody";
    if (kind === "key_refused" || kind === "no_balance" || stage === "connect") return "account";
    // A provider that limits us works, and when to come back needs no circuit. And the whole time may have run out
    // because of others, or of a long answer.
    return kind === "rate_limited" || stage === "total" ? "nobody" : "model";
  }

  /** What the client is told. The provider's words are passed on only where they are about the client's request. */
  toAppError(): AppError {
    const { kind, retryAfterMs } = this.facts;
    return new AppError(this.rule.code, {
      ...(this.rule.isClientError ? this.#clientErrorExtras() : {}),
      ...(codesWithRetryAfter.has(this.rule.code) ? { retryAfterSeconds: (retryAfterMs ?? 1000) / 1000 } : {}),
      ...(kind === "model_unknown" ? { param: "model" } : {}),
      // An SDK that tried again would multiply what has been tried already.
      ...(this.attempts > 1 ? { shouldRetry: false } : {}),
      cause: this,
    });
  }

  /** Code, param and message where SDKs read them, for programs act on them; the rest under `details.upstream`. */
  #clientErrorExtras(): ErrorExtras {
    const { kind, status, upstreamMessage: message = "", upstream } = this.facts;
    const { code, param, others } = upstream ?? { code: "", param: "", others: {} };
    // Clients know this one by our code.
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
 * This machine has no descriptors, ports, memory or buffers left (errno(3)), doesn't let us out, or the proxy is closing
 * its connections: no provider can help that.
 */
const localCodes: ReadonlySet<string> = new Set([
  ...["EMFILE", "ENFILE", "EADDRNOTAVAIL", "EADDRINUSE", "ENOMEM", "ENOBUFS", "EAI_MEMORY"],
  ...["EACCES", "EPERM", "ENETDOWN", "UND_ERR_DESTROYED", "UND_ERR_CLOSED"],
]);
/** The same, but where it is so for one of a provider's addresses alone: there may be no IPv6 here. */
const unreachable = "ENETUNREACH";

/**
 * What an error of a connection means. The code may stand on the error, on its cause, or, where several addresses were
 * tried, on any of its errors.
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
