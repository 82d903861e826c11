import type { UpstreamErrorKind } from "./upstream-error.ts";
import type { ProviderKind } from "./provider-kind.ts";
import type { ReportedError } from "./stream/reported.ts";

/** A response that reports an error. */
export interface FailedResponse {
  /** HTTP status; 200 if the error came inside a response with a good status. */
  readonly status: number;
  readonly error: ReportedError;
  /** The provider's name for it. */
  readonly model: string;
}

/** The key that was used. */
export interface KeyFacts {
  /** The key itself, which an error may quote. "" if there is none. */
  readonly secret: string;
  /** Whether a request with it has succeeded since the start. */
  readonly keyWorked: boolean;
}

/** What a status means by itself. Other statuses are server errors from 500 on, and request errors below. */
const statusKinds: ReadonlyMap<number, UpstreamErrorKind> = new Map<number, UpstreamErrorKind>([
  [401, "key_refused"],
  [402, "no_balance"],
  [403, "forbidden"],
  [404, "unsupported"],
  [405, "unsupported"],
  [406, "unsupported"],
  [407, "unsupported"],
  [408, "timeout"],
  [410, "unsupported"],
  [411, "unsupported"],
  [414, "unsupported"],
  [421, "unsupported"],
  [424, "server_error"],
  [425, "overloaded"],
  [426, "unsupported"],
  [429, "rate_limited"],
  [431, "unsupported"],
  [451, "content_refused"],
  [498, "overloaded"],
  [499, "server_error"],
  [503, "overloaded"],
  [529, "overloaded"],
]);

/** What codes and types mean, in snake case; the first match counts. */
const wordKinds: readonly (readonly [RegExp, UpstreamErrorKind])[] = [
  [
    /insufficient_(?:account_)?(?:balance|quota|credit|fund)|exceeded_current_quota|billing|arrear|overdue/,
    "no_balance",
  ],
  [/payment_required|out_of_credit|no_credit/, "no_balance"],
  [/content_(?:filter|policy|block|refus|violat|moderat|risk)|moderation|flagged|sensitive/, "content_refused"],
  [/inspection_failed|safety|policy_violation|prompt_block|invalid_prompt|risk_control/, "content_refused"],
  [
    /rate_?limit|too_many_requests|throttl|quota|resource_exhausted|slow_down|concurrency|limit_reached/,
    "rate_limited",
  ],
  [/overload|unavailable|busy|capacity/, "overloaded"],
  [/model_?(?:not_?|un)(?:found|known|exist|available|supported)|model_does_not/, "model_unknown"],
  [/(?:unknown|invalid|no_such|unsupported)_model|deployment_not_found/, "model_unknown"],
  [/unauthori[sz]ed|unauthenticated|authentication|(?:api|access)_?key|credential/, "key_refused"],
  [/(?:account|key|organi[sz]ation)_(?:is_)?(?:deactivated|disabled|suspended|blocked|inactive)/, "key_refused"],
  [/permission|forbidden|access_denied|not_allowed|access_terminated/, "forbidden"],
  [/time_?out|timed_out|deadline_exceeded/, "timeout"],
  [/internal|server_error|api_error|upstream|bad_gateway/, "server_error"],
  [/not_found|no_such|not_exist/, "unsupported"],
  [/invalid|bad_request|unsupported|missing|unprocessable|validat|malformed|not_supported/, "bad_request"],
  [/context_(?:length|window)|too_(?:large|long|many_tokens)|max_length|max_tokens|out_of_range/, "bad_request"],
  [/failed_precondition|unknown_(?:parameter|field)|parameter_error|illegal/, "bad_request"],
];

const account: readonly UpstreamErrorKind[] = ["no_balance", "key_refused"];
const refined: readonly UpstreamErrorKind[] = [
  ...account,
  "content_refused",
  "model_unknown",
  "rate_limited",
  "overloaded",
];
/** For a 5xx whose error says that the request was wrong. A status inside the error takes precedence over its type. */
const serverRefined: readonly UpstreamErrorKind[] = [...refined, "bad_request", "forbidden", "timeout"];

/** The kinds by which code or type may override a status; without an entry the status always decides. */
const wordsOverStatus: ReadonlyMap<number, readonly UpstreamErrorKind[]> = new Map<
  number,
  readonly UpstreamErrorKind[]
>([
  [400, refined],
  [401, ["no_balance", "model_unknown"]],
  [403, refined],
  [404, ["content_refused", "model_unknown"]],
  [409, refined],
  [410, ["model_unknown"]],
  [413, ["content_refused"]],
  [415, refined],
  [422, refined],
  [429, ["no_balance", "content_refused", "overloaded"]],
]);

/**
 * Classifies an error, which decides what it counts against and where to retry. In an error that came with status 200,
 * a number in 400..599 is taken for the status; after that its code decides, then its type. With another status, code
 * and type decide only where they are more specific than the status or contradict it.
 */
export function kindOfError(kind: ProviderKind, response: FailedResponse, key: KeyFacts): UpstreamErrorKind {
  const { error } = response;
  const status = statusOf(response);
  return kind.classify(status, error) ?? byMessage(byStatusAndWords(status, response), response, key);
}

function byStatusAndWords(status: number, response: FailedResponse): UpstreamErrorKind {
  const { code, type } = response.error;
  const byWords = wordKind(code) ?? wordKind(type);
  if (status < 300) return byWords ?? "server_error";
  // A redirect is never a valid response.
  if (status < 400) return "invalid_response";
  const forServerError = status === response.status ? serverRefined : refined;
  const overriding = wordsOverStatus.get(status) ?? (status >= 500 ? forServerError : []);
  return byWords !== null && overriding.includes(byWords) ? byWords : statusKind(status);
}

/** The HTTP status, or the one inside the error if that is more specific. */
function statusOf({ status, error }: FailedResponse): number {
  if (error.status === null || status === error.status) return status;
  if (status < 300) return error.status;
  // A gateway's 400 or 500 around a client error of the provider behind it.
  return (status === 400 || status >= 500) && error.status < 500 ? error.status : status;
}

function statusKind(status: number): UpstreamErrorKind {
  return statusKinds.get(status) ?? (status >= 500 ? "server_error" : "bad_request");
}

function wordKind(name: string): UpstreamErrorKind | null {
  if (name === "") return null;
  const words = name
    .replace(/([a-z])([A-Z])/g, "$1_$2")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "_");
  return wordKinds.find(([pattern]) => pattern.test(words))?.[1] ?? null;
}

/** Uses the message where code and status leave open what was rejected. */
function byMessage(kind: UpstreamErrorKind, { error, model }: FailedResponse, key: KeyFacts): UpstreamErrorKind {
  if (kind === "unsupported") {
    if (concernsModel(error, model)) return "model_unknown";
    return error.param === "" ? kind : "bad_request";
  }
  if (kind === "forbidden") return !key.keyWorked || namesKey(error, key.secret) ? "key_refused" : kind;
  // Only at the start: further on a message may quote the client.
  if (kind === "bad_request" && /^api key (?:not valid|invalid|expired)/i.test(error.message)) return "key_refused";
  // Waiting doesn't help a request that is larger than the account's limit for a minute.
  if (kind === "rate_limited" && /^request too large/i.test(error.message)) return "bad_request";
  return kind;
}

/** Whether the model was not found, rather than the path. A model in a path, such as /v1/models, doesn't count. */
function concernsModel({ code, type, param, message }: ReportedError, model: string): boolean {
  if (param === "model" || /model|deployment/i.test(`${code} ${type}`)) return true;
  return /(?<![/\w-])(?:models?|deployment)(?![\w-])|模型/i.test(message) || names(message, model);
}

/** Whether a text has a name as a separate word, not as a path segment. */
function names(text: string, name: string): boolean {
  if (name === "") return false;
  for (let at = text.indexOf(name); at !== -1; at = text.indexOf(name, at + name.length)) {
    const around = `${text[at - 1] ?? " "}${text[at + name.length] ?? " "}`;
    if (!/[\w/-]/.test(around)) return true;
  }
  return false;
}

const keyNames =
  /(?:api|access|secret|auth\w{0,20})[\s_-]{0,3}(?:key|token)|\b(?:your|this|the|provided|invalid|expired|disabled|revoked) key\b|\bkey (?:is|has|was|not|limit)\b|\b(?:invalid|expired|disabled|revoked) token\b|密钥|令牌/i;

/** Whether an error is about the proxy's key: it quotes the key, or mentions it the way providers do. */
function namesKey({ code, type, message }: ReportedError, secret: string): boolean {
  return (secret !== "" && message.includes(secret)) || keyNames.test(`${code} ${type} ${message}`);
}
