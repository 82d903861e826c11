/** What the proxy says is wrong, and what the client knows about the answer that said so. */
export interface ProxyErrorDetails {
  /** HTTP status; undefined for an error event in a stream, or where there was no answer. */
  readonly status?: number | undefined;
  /** The proxy's code, such as `quota_exceeded`; docs/errors.md of the proxy lists them. */
  readonly code: string;
  readonly message: string;
  readonly type?: string | undefined;
  /** The invalid field, in dot notation. */
  readonly param?: string | undefined;
  /** Names the request in the proxy's logs. */
  readonly traceId?: string | undefined;
  /** Facts for programs, such as `{metric, used, limit, reset_at}`. */
  readonly details?: Readonly<Record<string, unknown>> | undefined;
  readonly retryAfterSeconds?: number | undefined;
  /** What the proxy said in `x-should-retry`; undefined if nothing. */
  readonly shouldRetry?: boolean | undefined;
  /** The answer as it came. */
  readonly answer?: RefusedAnswer | undefined;
  readonly cause?: unknown;
}

/** An answer with an error status, read to its end. */
export interface RefusedAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** The base of all errors of this package. Its `code` tells programs what happened. */
export class ProxyError extends Error {
  override readonly name: string = "ProxyError";
  readonly status: number | undefined;
  readonly code: string;
  readonly type: string | undefined;
  readonly param: string | undefined;
  readonly traceId: string | undefined;
  readonly details: Readonly<Record<string, unknown>>;
  readonly retryAfterSeconds: number | undefined;
  readonly shouldRetry: boolean | undefined;
  readonly answer: RefusedAnswer | undefined;

  constructor(about: ProxyErrorDetails) {
    super(about.message, about.cause === undefined ? undefined : { cause: about.cause });
    this.status = about.status;
    this.code = about.code;
    this.type = about.type;
    this.param = about.param;
    this.traceId = about.traceId;
    this.details = about.details ?? {};
    this.retryAfterSeconds = about.retryAfterSeconds;
    this.shouldRetry = about.shouldRetry;
    this.answer = about.answer;
  }
}

/** 401: the credentials are wrong, or the session is over. */
export class AuthenticationError extends ProxyError {
  override readonly name = "AuthenticationError";
}

/** 403: the account may not do that. */
export class ForbiddenError extends ProxyError {
  override readonly name = "ForbiddenError";
}

/** A limit is used up: `details` say which, and when it resets. */
export class QuotaExceededError extends ProxyError {
  override readonly name = "QuotaExceededError";
}

/** 429: too many requests, at once or in a time. */
export class RateLimitError extends ProxyError {
  override readonly name = "RateLimitError";
}

/** Other 4xx: the request is wrong. */
export class InvalidRequestError extends ProxyError {
  override readonly name = "InvalidRequestError";
}

/** 5xx: the proxy or the provider behind it failed. */
export class UnavailableError extends ProxyError {
  override readonly name = "UnavailableError";
}

/** No answer came: code `connection_failed`, which reached no server, or `connection_lost`, which may have. */
export class ConnectionError extends ProxyError {
  override readonly name = "ConnectionError";
}

const quotaCodes: ReadonlySet<string> = new Set(["quota_exceeded", "quota_exceeded_midstream"]);
const rateCodes: ReadonlySet<string> = new Set([
  "rate_limited",
  "concurrency_exceeded",
  "login_busy",
  "login_blocked",
  "upstream_rate_limited",
]);
const typesOfEvents = new Map<string, (about: ProxyErrorDetails) => ProxyError>([
  ["authentication_error", (about) => new AuthenticationError(about)],
  ["permission_error", (about) => new ForbiddenError(about)],
  ["invalid_request_error", (about) => new InvalidRequestError(about)],
]);

/** The error of the class that fits code and status. */
export function createProxyError(about: ProxyErrorDetails): ProxyError {
  const { code, status, type = "" } = about;
  if (quotaCodes.has(code)) return new QuotaExceededError(about);
  if (rateCodes.has(code) || status === 429) return new RateLimitError(about);
  if (status === undefined) return (typesOfEvents.get(type) ?? ((rest) => new UnavailableError(rest)))(about);
  if (status === 401) return new AuthenticationError(about);
  if (status === 402) return new QuotaExceededError(about);
  if (status === 403) return new ForbiddenError(about);
  return status < 500 ? new InvalidRequestError(about) : new UnavailableError(about);
}

/** The error that an answer with an error status stands for. Reads the answer's body. */
export async function errorOfResponse(response: Response): Promise<ProxyError> {
  const body = await textOf(response);
  const { status, headers } = response;
  const fields = errorFields(parsed(body));
  const shouldRetry = headers.get("x-should-retry");
  return createProxyError({
    ...fields,
    status,
    code: fields.code ?? `http_${status}`,
    message: fields.message ?? `The proxy answered with status ${status}.`,
    traceId: fields.traceId ?? headers.get("x-request-id") ?? undefined,
    retryAfterSeconds: secondsOf(headers.get("retry-after")),
    shouldRetry: shouldRetry === null ? undefined : shouldRetry === "true",
    answer: { status, headers, body },
  });
}

/** The JSON of an answer; undefined where it has no body. Throws ProxyError for what is no JSON, or broke off. */
export async function jsonOfResponse(response: Response): Promise<unknown> {
  if (response.status === 204) return undefined;
  const body = await textOf(response);
  const json = parsed(body);
  if (json !== undefined) return json;
  // Without the answer: that of a login would be taken for the answer to the request that waits for it.
  throw new ProxyError({
    code: "not_json",
    message: "The answer is no JSON, so it is not the proxy's: is baseUrl right?",
  });
}

/** The body. Throws ConnectionError where it broke off; what its caller has aborted is thrown as it is. */
async function textOf(response: Response): Promise<string> {
  try {
    return await response.text();
  } catch (cause) {
    if (!(cause instanceof TypeError) && !(cause instanceof Error && "code" in cause)) throw cause;
    if (cause.name === "AbortError") throw cause;
    const message = "The connection broke before the answer was complete.";
    throw new ConnectionError({ code: "connection_lost", message, cause });
  }
}

/** The error that an event of a stream, or a JSON body, holds; undefined if it is no error. */
export function errorInBody(body: unknown): ProxyError | undefined {
  if (!isRecord(body) || !isRecord(body.error)) return undefined;
  const fields = errorFields(body);
  return createProxyError({
    ...fields,
    code: fields.code ?? fields.type ?? "unknown_error",
    message: fields.message ?? "The answer broke off.",
  });
}

type Fields = Pick<ProxyErrorDetails, "type" | "param" | "traceId" | "details"> & {
  readonly code?: string | undefined;
  readonly message?: string | undefined;
};

function errorFields(body: unknown): Fields {
  const error = isRecord(body) && isRecord(body.error) ? body.error : {};
  return {
    code: text(error.code),
    message: text(error.message),
    type: text(error.type),
    param: text(error.param),
    traceId: text(error.trace_id),
    details: isRecord(error.details) ? error.details : undefined,
  };
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function secondsOf(header: string | null): number | undefined {
  if (header === null) return undefined;
  const seconds = Number(header);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds : undefined;
}

/** The parsed JSON; undefined if it is none. */
export function parsed(json: string): unknown {
  try {
    return JSON.parse(json) as unknown;
  } catch {
    return undefined;
  }
}

/** Whether a value is an object with keys. */
export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
