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
  | "no_balance";

interface FaultRule {
  /** What the client is told. */
  readonly code: ErrorCode;
  /** Whether another provider, or the same one later, may do better. */
  readonly elsewhere: boolean;
  /** Whether the provider is to blame; the client's own mistakes never count against it. */
  readonly blame: boolean;
  /** Whether the operator has to do something. */
  readonly alert: boolean;
}

const rules: Readonly<Record<FaultKind, FaultRule>> = {
  rate_limited: { code: "upstream_rate_limited", elsewhere: true, blame: true, alert: false },
  overloaded: { code: "upstream_overloaded", elsewhere: true, blame: true, alert: false },
  timeout: { code: "upstream_timeout", elsewhere: true, blame: true, alert: false },
  network: { code: "upstream_error", elsewhere: true, blame: true, alert: false },
  server_error: { code: "upstream_error", elsewhere: true, blame: true, alert: false },
  invalid_response: { code: "upstream_invalid_response", elsewhere: true, blame: true, alert: false },
  truncated: { code: "upstream_truncated", elsewhere: true, blame: true, alert: false },
  content_refused: { code: "content_refused", elsewhere: false, blame: false, alert: false },
  bad_request: { code: "upstream_rejected", elsewhere: false, blame: false, alert: false },
  model_unknown: { code: "model_not_found", elsewhere: true, blame: false, alert: false },
  // The client's own key and balance are fine; ours are not. So it is told 503, never 401 or 402.
  key_refused: { code: "upstream_unavailable", elsewhere: true, blame: true, alert: true },
  no_balance: { code: "upstream_unavailable", elsewhere: true, blame: true, alert: true },
};

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
      cause: this,
    });
  }
}
