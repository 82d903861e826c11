/** The public part of an error code. */
interface ErrorRow {
  /** HTTP status. */
  readonly status: number;
  /** OpenAI's `error.type`, which its SDKs expose to programs. */
  readonly type: string;
  /** The message if the thrower gives no better one. Safe to show to anyone. */
  readonly message: string;
  /** Whether the same request may succeed later without a change. */
  readonly retryable: boolean;
}

/** The only table of errors: every error that the proxy sends has a row here. docs/errors.md lists the same rows. */
export const errorTable = {
  invalid_request: row(400, "invalid_request_error", "The request is not valid.", false),
  invalid_json: row(400, "invalid_request_error", "The body is not valid JSON.", false),
  bad_http: row(400, "invalid_request_error", "The request is not well-formed HTTP.", false),
  upstream_rejected: row(400, "invalid_request_error", "The provider refused the request as invalid.", false),
  code_invalid: row(400, "invalid_request_error", "This code can't be used.", false),
  content_refused: row(400, "invalid_request_error", "The provider refused the content.", false),
  missing_token: row(401, "authentication_error", "A bearer token is required: Authorization: Bearer TOKEN.", false),
  invalid_token: row(401, "authentication_error", "The access token or API key is not valid.", false),
  token_expired: row(401, "authentication_error", "The token has expired. Log in again.", false),
  invalid_credentials: row(401, "authentication_error", "The user name or the password is wrong.", false),
  otp_required: row(401, "authentication_error", "A code of your second factor is required: otp.", false),
  otp_invalid: row(401, "authentication_error", "The code is wrong, or was used before.", false),
  oidc_failed: row(401, "authentication_error", "The identity provider's answer is not valid. Log in again.", false),
  oidc_expired: row(401, "authentication_error", "This login took too long, or was used before. Begin again.", false),
  oidc_cancelled: row(401, "authentication_error", "The login was cancelled at the identity provider.", false),
  invalid_api_key: row(401, "authentication_error", "The API key is not valid.", false),
  signature_invalid: row(401, "authentication_error", "The request's signature is missing or not valid.", false),
  quota_exceeded: row(402, "insufficient_quota", "The quota is used up.", false),
  quota_exceeded_midstream: row(402, "insufficient_quota", "The quota ran out before the answer was complete.", false),
  account_disabled: row(403, "permission_error", "This account is disabled.", false),
  password_login_off: row(403, "permission_error", "Logging in with a password is switched off here.", false),
  registration_off: row(403, "permission_error", "Registering is switched off here. Ask your administrator.", false),
  oidc_no_account: row(403, "permission_error", "This login has no account here. Ask your administrator.", false),
  second_factor_required: row(403, "permission_error", "Set up a second factor first: /panel/account.", false),
  password_change_required: row(403, "permission_error", "Change your password first: POST /auth/password.", false),
  upstream_forbidden: row(403, "permission_error", "The provider does not allow this request.", false),
  forbidden: row(403, "permission_error", "This account may not do that.", false),
  csrf: row(403, "permission_error", "A page of another origin may not do that.", false),
  address_not_allowed: row(403, "permission_error", "This address may not do that.", false),
  model_not_allowed: row(403, "permission_error", "You may not use this model.", false),
  group_not_allowed: row(403, "permission_error", "You are not in this group.", false),
  model_not_priced: row(403, "permission_error", "This model has no price, and your cost is limited.", false),
  extra_not_priced: row(403, "permission_error", "This has no price, and your cost is limited.", false),
  not_found: row(404, "invalid_request_error", "There is nothing at this address.", false),
  model_not_found: row(404, "invalid_request_error", "No provider serves this model.", false),
  method_not_allowed: row(405, "invalid_request_error", "This address does not take this method.", false),
  request_timeout: row(408, "invalid_request_error", "The request took too long to arrive.", true),
  conflict: row(409, "invalid_request_error", "That is taken already.", false),
  oidc_name_taken: row(
    409,
    "invalid_request_error",
    "Another account has your user name: log in there and link.",
    false,
  ),
  precondition_failed: row(
    412,
    "invalid_request_error",
    "It has been changed since you read it. Read it again.",
    false,
  ),
  config_invalid: row(
    422,
    "invalid_request_error",
    "The config file is invalid; the previous one stays in force.",
    false,
  ),
  body_too_large: row(413, "invalid_request_error", "The body is too large.", false),
  unsupported_media_type: row(415, "invalid_request_error", "Send the body as application/json.", false),
  upgrade_required: row(426, "invalid_request_error", "WebSockets are not served here. Use POST.", false),
  headers_too_large: row(431, "invalid_request_error", "The headers are too large.", false),
  rate_limited: row(429, "rate_limit_error", "Too many requests. Slow down.", true),
  concurrency_exceeded: row(429, "rate_limit_error", "Too many requests are running.", true),
  login_busy: row(429, "rate_limit_error", "Too many logins are waiting. Try again soon.", true),
  login_blocked: row(429, "rate_limit_error", "Too many failed logins. Wait and try again.", true),
  upstream_rate_limited: row(429, "rate_limit_error", "The provider is limiting requests. Try again soon.", true),
  internal_error: row(500, "api_error", "Something went wrong in the proxy.", true),
  upstream_error: row(502, "api_error", "The provider failed.", true),
  upstream_invalid_response: row(502, "api_error", "The provider sent something that is not a valid answer.", true),
  upstream_truncated: row(502, "api_error", "The provider's answer broke off before its end.", true),
  upstream_unavailable: row(503, "api_error", "No provider can take the request now.", true),
  upstream_overloaded: row(503, "api_error", "The provider is overloaded. Try again soon.", true),
  proxy_overloaded: row(503, "api_error", "The proxy is short of resources. Try again soon.", true),
  storage_unavailable: row(503, "api_error", "Charges cannot be recorded now, so nothing billable is served.", true),
  oidc_unavailable: row(503, "api_error", "The identity provider can't be reached now. Try again soon.", true),
  shutting_down: row(503, "api_error", "The proxy is shutting down. Try again soon.", true),
  upstream_timeout: row(504, "api_error", "The provider did not answer in time.", true),
} as const satisfies Record<string, ErrorRow>;

/** A stable code that programs can rely on. */
export type ErrorCode = keyof typeof errorTable;

/** Details beyond the code. All of it is shown to the client, so no secrets, stacks or paths. */
export interface ErrorExtras {
  /** The public message, if it can be more precise than the table's. */
  readonly message?: string;
  /** The invalid request field, in dot notation. */
  readonly param?: string;
  /** Shown as `code` instead of the table's: the provider's own code, from which programs learn what is wrong. */
  readonly shownCode?: string;
  /** Replaces the table's HTTP status if the provider's is more precise, such as 413. */
  readonly status?: number;
  /** Machine-readable facts, such as `{metric, used, limit, reset_at}` with a 402. */
  readonly details?: Readonly<Record<string, unknown>>;
  /**
   * When to try again, in seconds; becomes the Retry-After header, rounded up. Default for 429 and 503: 1, because such
   * responses have the header. Null: none, because to wait is of no use.
   */
  readonly retryAfterSeconds?: number | null;
  /** False if the proxy has retried already and an SDK should not do it again (`x-should-retry: false`). */
  readonly shouldRetry?: boolean;
  /** More response headers, by their names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  /** For the operator's log only; never shown to a client. */
  readonly cause?: unknown;
}

/** An error with a row in the table. Thrown anywhere, turned into a response in one place. */
export class AppError extends Error {
  override readonly name = "AppError";
  readonly code: ErrorCode;
  readonly status: number;
  readonly type: string;
  readonly retryable: boolean;
  readonly extras: ErrorExtras;

  constructor(code: ErrorCode, extras: ErrorExtras = {}) {
    const { status, type, message, retryable } = errorTable[code];
    super(extras.message ?? message, extras.cause === undefined ? undefined : { cause: extras.cause });
    this.code = code;
    this.status = extras.status ?? status;
    this.type = type;
    this.retryable = retryable;
    const saysWhen = this.status === 429 || this.status === 503;
    this.extras = saysWhen && extras.retryAfterSeconds === undefined ? { ...extras, retryAfterSeconds: 1 } : extras;
  }
}

/** The JSON body of an error: OpenAI's shape plus `trace_id`, which equals the X-Request-ID header. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly code: string;
    readonly param: string | null;
    readonly trace_id: string;
    readonly details?: Readonly<Record<string, unknown>>;
  };
}

/** Renders an error for a client, as an HTTP body or as the data of an SSE error event. */
export function errorBody(error: AppError, traceId: string): ErrorBody {
  const { param, details, shownCode } = error.extras;
  return {
    error: {
      message: error.message,
      type: error.type,
      code: shownCode ?? error.code,
      param: param ?? null,
      trace_id: traceId,
      ...(details === undefined ? {} : { details }),
    },
  };
}

function row(status: number, type: string, message: string, retryable: boolean): ErrorRow {
  return { status, type, message, retryable };
}
