import { AppError, type ErrorCode } from "../errors.ts";

/** What went wrong with a provider, in the words that metrics, logs and the retry rule use. A closed set. */
export type FaultKind =
  | "rate_limited"
  | "overloaded"
  | "timeout"
  | "network"
  | "server_error"
  | "invalid_response"
  | "truncated"
  | "content_refused"
  | "bad_request"
  | "model_unknown"
  | "key_refused"
  | "no_balance"
  | "unavailable";

interface FaultRule {
  /** What the client is told. */
  readonly code: ErrorCode;
  /** Who may be asked next: nobody, only others, or after a pause the same account as well. */
  readonly retry: "never" | "elsewhere" | "again";
  /** Whom the fault concerns: this key, and another of the same provider may do better, or the whole provider. */
  readonly scope: "key" | "provider";
  /** Whether the provider is to blame; the client's own mistakes never count against it. */
  readonly blame: boolean;
  /** Whether the operator has to do something. */
  readonly alert: boolean;
}

const rules: Readonly<Record<FaultKind, FaultRule>> = {
  rate_limited: row("upstream_rate_limited", "again", "key", true),
  overloaded: row("upstream_overloaded", "again", "provider", true),
  // A client has waited long enough then; to ask the same provider again would double it.
  timeout: row("upstream_timeout", "elsewhere", "provider", true),
  network: row("upstream_error", "again", "provider", true),
  server_error: row("upstream_error", "again", "provider", true),
  invalid_response: row("upstream_invalid_response", "again", "provider", true),
  truncated: row("upstream_truncated", "again", "provider", true),
  content_refused: row("content_refused", "never", "provider", false),
  bad_request: row("upstream_rejected", "never", "provider", false),
  model_unknown: row("model_not_found", "elsewhere", "provider", false),
  // The client's own key and balance are fine; ours are not. So it is told 503, never 401 or 402.
  key_refused: row("upstream_unavailable", "elsewhere", "key", true, true),
  no_balance: row("upstream_unavailable", "elsewhere", "key", true, true),
  // Nobody was asked: all that could be are out of service.
  unavailable: row("upstream_unavailable", "never", "provider", false),
};

function row(
  code: ErrorCode,
  retry: FaultRule["retry"],
  scope: FaultRule["scope"],
  blame: boolean,
  alert = false,
): FaultRule {
  return { code, retry, scope, blame, alert };
}

/** Where an answer stood when it failed. */
export type FaultStage = "connect" | "first_byte" | "first_event" | "streaming" | "total";

export interface FaultFacts {
  readonly kind: FaultKind;
  readonly stage: FaultStage;
  /** The provider's HTTP status; absent where there was none. */
  readonly status?: number;
  /** The provider's own words, for the log; shown to the client only where the fault is the client's. */
  readonly upstreamMessage?: string;
  /** How long the provider asked to be left alone, in ms. */
  readonly retryAfterMs?: number;
  readonly cause?: unknown;
}

/** A provider failed to answer, or broke off. */
export class UpstreamFault extends Error {
  override readonly name = "UpstreamFault";
  readonly facts: FaultFacts;
  readonly rule: FaultRule;
  /** How often providers had been asked when the proxy gave up; set by dispatch. */
  attempts = 0;
  /** The provider that failed, by name; "" where none was asked. Set by dispatch. */
  provider = "";
  /** Whether it is about a key that has been replaced since it was sent. Set by the exchange. */
  isOutdated = false;

  constructor(facts: FaultFacts) {
    super(`${facts.kind} at ${facts.stage}`, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.facts = facts;
    this.rule = rules[facts.kind];
  }

  /** What the client is told. The provider's words are passed on only where they are about the client's request. */
  toAppError(): AppError {
    const { kind, upstreamMessage, retryAfterMs } = this.facts;
    const clients = kind === "bad_request" || kind === "content_refused";
    const waits =
      this.rule.code === "upstream_rate_limited" ||
      this.rule.code === "upstream_overloaded" ||
      this.rule.code === "upstream_unavailable";
    return new AppError(this.rule.code, {
      ...(clients && upstreamMessage !== undefined ? { message: upstreamMessage } : {}),
      ...(waits ? { retryAfterSeconds: (retryAfterMs ?? 1000) / 1000 } : {}),
      // An SDK that tried again would multiply what has been tried already.
      ...(this.attempts > 1 ? { shouldRetry: false } : {}),
      cause: this,
    });
  }
}
