/* Every event once: what it says, and what becomes of it. An event that is added here reaches every sink. */

import type { lockScopes, PayloadOf } from "./payloads.ts";

/** Events that may matter outside the request. Facts only: no prompts, no secrets. */
export type ProxyEvent =
  | ChatFinished
  | LoginSucceeded
  | LoginFailed
  | LoginLocked
  | LoginUnlocked
  | QuotaExceeded
  | RateLimited
  | RequestFinished
  | CredentialChanged
  | ProviderAlert
  | AdminChanged
  | TrustChanged
  | ConfigReloaded
  | ConfigRejected
  | OverloadChanged
  | EventsLost;

interface EventBase {
  /** ms since the epoch. */
  readonly at: number;
  /** Equals the X-Request-ID of the request that caused it; "" if none did. */
  readonly traceId: string;
  /**
   * The trace-id of that request's `traceparent`, 32 hex digits; absent if it has none, or if the request is still
   * running: then the envelope finds it.
   */
  readonly w3cTraceId?: string | undefined;
  /** The client's address. */
  readonly ip: string;
}

/** A chat request that passed authentication has ended, successfully or not. Emitted exactly once for each. */
export interface ChatFinished extends EventBase {
  readonly type: "chat.finished";
  readonly user: string;
  /** The id of the request's API key; "" for an access token. */
  readonly keyId: string;
  /** The client program, from its User-Agent; "" if it names none. */
  readonly client: string;
  /** The group that the request counts for; "" for none. */
  readonly group: string;
  /** chat, beta_chat, completions, messages or embeddings; "" if the request was refused as invalid. */
  readonly api: string;
  readonly model: string;
  /** "" if the request was refused before a provider was chosen. */
  readonly provider: string;
  readonly stream: boolean;
  /** The ledger's outcome. */
  readonly outcome: string;
  /** "ok", or the error code that the client got. */
  readonly code: string;
  /**
   * The limit that refused it; "" if none did: the name of a rule, `concurrency` (the user's own), `concurrency_SCOPE`,
   * `user quota` or `group quota`.
   */
  readonly refusedBy: string;
  /** HTTP status that the client got; 0 if it disconnected before one was sent. */
  readonly status: number;
  readonly requests: number;
  readonly inputTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
  readonly reasoningTokens: number;
  /** nano-units of `currency`. */
  readonly cost: number;
  readonly currency: string;
  readonly estimated: boolean;
  /** ms from the first attempt to the first data event; null if none came. */
  readonly firstEventMs: number | null;
  /** ms from the first data event to the end of the provider's response; null if none came. */
  readonly generationMs: number | null;
  /** ms from the arrival of the request to its end. */
  readonly durationMs: number;
  /** ms that it waited for a permit; 0 if it didn't. */
  readonly queueMs: number;
  /** Attempts at providers beyond the first. */
  readonly retries: number;
}

/** How somebody logs in; absent: with a password. */
type LoginMethod = "oidc";

interface LoginSucceeded extends EventBase {
  readonly type: "login.succeeded";
  readonly user: string;
  readonly method?: LoginMethod;
}

export interface LoginFailed extends EventBase {
  readonly type: "login.failed";
  readonly method?: LoginMethod;
  /** The attempted account, only if it has a valid name; it may not exist. */
  readonly user: string;
  /** Whether an account of that name exists; prevents log folders for made-up names. */
  readonly known: boolean;
  readonly result: "failure" | "blocked";
  readonly reason: string;
}

/**
 * An account or an address has to wait for its next login. Emitted when the waits begin, and when they reach their
 * maximum.
 */
export interface LoginLocked extends EventBase {
  readonly type: "login.locked";
  /** The account of the latest attempt; it may not exist. */
  readonly user: string;
  /** Whether an account of that name exists. */
  readonly known: boolean;
  /** What has to wait: the account from any address, the address for any account, or the pair. */
  readonly scope: (typeof lockScopes)[number];
  /** Failed logins so far. */
  readonly failures: number;
  readonly escalation: "begun" | "longest";
  /** ms until the next attempt. */
  readonly waitMs: number;
}

/** An operator has cleared an account's failed logins. */
export interface LoginUnlocked extends EventBase {
  readonly type: "login.unlocked";
  readonly user: string;
  /** Whether an account of that name exists. */
  readonly known: boolean;
  /** The operator. */
  readonly by: string;
}

interface QuotaExceeded extends EventBase {
  readonly type: "quota.exceeded";
  readonly user: string;
  readonly metric: string;
  readonly per: string;
}

interface RateLimited extends EventBase {
  readonly type: "rate_limit.rejected";
  readonly user: string;
  /** Which rule refused: "global", "per_user", "concurrency", ... A fixed set, safe as a metric label. */
  readonly rule: string;
}

/** The group of a route. A closed set, safe as a metric label; `other` is for paths without a route. */
export const routeGroups = ["api", "models", "auth", "admin", "panel", "ops", "other"] as const;
export type RouteGroup = (typeof routeGroups)[number];

/** A request that emits no event of its own (all but chats) got its response, an error or not. */
interface RequestFinished extends EventBase {
  readonly type: "request.finished";
  readonly route: RouteGroup;
  /** "ok", or the error code that the client got. */
  readonly code: string;
  readonly status: number;
  /** ms from its arrival to the end of its response, for metrics alone; absent if it is not known. */
  readonly durationMs?: number | undefined;
}

/** A user's credentials are new, have changed, or were found to be stolen. */
interface CredentialChanged extends EventBase {
  readonly type:
    | "user.registered"
    | "session.reuse_detected"
    | "session.ended"
    | "api_key.created"
    | "api_key.revoked"
    | "password.changed";
  readonly user: string;
  /** The public id of the session, key or invitation code; "*" for all sessions, "" for a password. */
  readonly subject: string;
}

/**
 * A provider needs its operator: it rejects the proxy's key, or its account is empty. At most one a minute and kind.
 */
export interface ProviderAlert extends EventBase {
  readonly type: "provider.alert";
  readonly provider: string;
  /** The index of the key, from 0. */
  readonly key: number;
  readonly kind: "key_refused" | "no_balance";
}

/** The possible actions of administrators, as named in the audit log. */
export type AdminAction =
  | "user.created"
  | "user.changed"
  | "user.archived"
  | "user.password_reset"
  | "user.login_unlocked"
  | "user.login_linked"
  | "user.login_unlinked"
  | "user.second_factor_enabled"
  | "user.second_factor_removed"
  | "quota.granted"
  | "quota.adjusted"
  | "quota.reset"
  | "quota.brought_back"
  | "trust.pinned"
  | "trust.unpinned"
  | "sessions.revoked"
  | "api_key.created"
  | "api_key.revoked"
  | "group.created"
  | "group.changed"
  | "group.removed"
  | "provider.drained"
  | "provider.restored"
  | "provider.tested"
  | "codes.created"
  | "codes.disabled"
  | "code.redeemed"
  | "config.reloaded"
  | "alerts.tested";

/** An administrator has changed something, by the admin API or on the command line. */
export interface AdminChanged extends EventBase {
  readonly type: "admin.changed";
  readonly action: AdminAction;
  /** Who made the change: a user name, or `cli:NAME` for the system user who ran the command. */
  readonly by: string;
  /** The affected user; null if there is none. */
  readonly user: string | null;
  /** What was changed, unless it is the user itself: a session, a key, a provider, a limit; else "". */
  readonly subject: string;
  /** The previous state; null for something new. Must not contain hashes or other secrets. */
  readonly before: Readonly<Record<string, unknown>> | null;
  /** The new state; null for something removed. */
  readonly after: Readonly<Record<string, unknown>> | null;
  /** The reason, if one was given; else "". */
  readonly reason: string;
}

/** A user has moved to another trust step. */
interface TrustChanged extends EventBase {
  readonly type: "trust.changed";
  readonly user: string;
  /** Names of steps. */
  readonly from: string;
  readonly to: string;
  readonly direction: "up" | "down";
  /** The score, from 0 to 100. */
  readonly score: number;
  /** Why, in words. */
  readonly reasons: readonly string[];
}

/** A changed config has come into force, or differs in what needs a restart. */
interface ConfigReloaded extends EventBase {
  readonly type: "config.reloaded";
  /** `file`, `SIGHUP`, or the name of an administrator. */
  readonly by: string;
  /** The first changes, with secrets masked. */
  readonly changes: readonly { readonly path: string; readonly before: unknown; readonly after: unknown }[];
  /** How many there are. */
  readonly count: number;
  /** Paths that only come into force with a restart. */
  readonly restartNeeded: readonly string[];
}

/** The config on disk is invalid; the previous one stays in force. */
interface ConfigRejected extends EventBase {
  readonly type: "config.rejected";
  readonly by: string;
  /** One problem a line, without secrets. */
  readonly error: string;
}

/** The proxy has begun to refuse work because it is short of resources, or it does so no longer. */
interface OverloadChanged extends EventBase {
  readonly type: "overload.began" | "overload.ended";
  /** 0 to 1: the part of the work that is refused. */
  readonly level: number;
  /** What is short: "event_loop", "heap" or "descriptors". */
  readonly reason: string;
}

/** Events have not reached a sink, and never will. At most one a minute and sink; neither Redis nor Kafka gets it. */
interface EventsLost extends EventBase {
  readonly type: "events.lost";
  /** behaviour_log, request_log, webhook, redis or kafka. */
  readonly sink: string;
  /** How many since the latest such event. */
  readonly count: number;
  /** The same by reason. */
  readonly reasons: Readonly<Record<string, number>>;
}

/** Emits an event; never throws, never waits. */
export type Emit = (event: ProxyEvent) => void;

export type EventType = ProxyEvent["type"];
type EventOf<T extends EventType> = ProxyEvent & { readonly type: T };

/** A counter of /metrics, which counts by one label. Chats and other requests are more than that: metrics.ts. */
export type EventCounter = "logins" | "rejections" | "quotaRefusals" | "trustMoves";

/** What becomes of an event. */
interface EventRow<E extends ProxyEvent, Payload = object> {
  /** Its line in the proxy's own log; null if it has none, because its response is logged where it is sent. */
  readonly log: { readonly level: "info" | "warn" | "error"; readonly message: string } | null;
  /** Whether alerts.events may name it, and whether it does by default. */
  readonly alert: "by_default" | "if_named" | "never";
  /** Whether it is in the behaviour log of its user, if it has one. */
  readonly behaviour: boolean;
  /** Its counter, and the value of the label ("" if there is none): from a fixed set, else it counts as other. */
  counts?(event: E): readonly [EventCounter, string];
  /**
   * The loggable fields besides those of the envelope: snake case, times in ms. An allow-list, so that a field added to
   * an event stays out of every log, alert and outer wire until it is named here.
   */
  payload(event: E): Payload;
}

const aboutUser = { alert: "if_named", behaviour: true } as const;
const unlogged = { log: null } as const;
const credentials = { level: "info", message: "credentials changed" } as const;
const subjectOf = ({ subject }: CredentialChanged) => ({ subject: text(subject) });

/** All events. The order is that of lists. */
export const catalogue: { readonly [T in EventType]: EventRow<EventOf<T>, PayloadOf<T>> } = {
  "chat.finished": {
    ...aboutUser,
    alert: "never",
    log: { level: "info", message: "chat finished" },
    // Names everything: spreading so large an object costs 40 µs.
    payload: (event) => ({
      client: event.client,
      api: event.api,
      model: text(event.model),
      provider: text(event.provider),
      stream: event.stream,
      outcome: text(event.outcome),
      code: text(event.code),
      status: event.status,
      requests: event.requests,
      input_tokens: event.inputTokens,
      cached_tokens: event.cachedTokens,
      output_tokens: event.outputTokens,
      reasoning_tokens: event.reasoningTokens,
      cost_nano: event.cost,
      currency: text(event.currency),
      estimated: event.estimated,
      first_event_ms: tenths(event.firstEventMs),
      generation_ms: tenths(event.generationMs),
      duration_ms: roundToTenths(event.durationMs),
      queue_ms: roundToTenths(event.queueMs),
      retries: event.retries,
    }),
  },
  "request.finished": {
    ...unlogged,
    alert: "never",
    behaviour: false,
    payload: ({ route, code, status }) => ({ route, code: text(code), status }),
  },
  "login.locked": {
    alert: "by_default",
    behaviour: true,
    log: { level: "warn", message: "too many failed logins: the next one has to wait" },
    payload: ({ scope, failures, escalation, waitMs }) => ({ scope, failures, escalation, wait_ms: waitMs }),
  },
  "login.unlocked": {
    alert: "by_default",
    behaviour: true,
    log: { level: "info", message: "failed logins cleared" },
    payload: ({ by }) => ({ by: text(by) }),
  },
  "login.failed": {
    ...aboutUser,
    log: { level: "info", message: "login failed" },
    counts: ({ result }) => ["logins", result],
    payload: ({ result, reason, method }) => ({ result, reason: text(reason), ...(method && { method }) }),
  },
  "login.succeeded": {
    ...aboutUser,
    log: { level: "info", message: "login succeeded" },
    counts: () => ["logins", "success"],
    payload: ({ method }) => ({ ...(method && { method }) }),
  },
  "user.registered": {
    ...aboutUser,
    log: { level: "info", message: "a user has registered with an invitation code" },
    payload: subjectOf,
  },
  "session.reuse_detected": {
    alert: "by_default",
    behaviour: true,
    log: { level: "warn", message: "a refresh token was used twice: its session has been ended" },
    payload: subjectOf,
  },
  "session.ended": { ...aboutUser, alert: "never", log: credentials, payload: subjectOf },
  "api_key.created": { ...aboutUser, log: credentials, payload: subjectOf },
  "api_key.revoked": { ...aboutUser, alert: "never", log: credentials, payload: subjectOf },
  "password.changed": { ...aboutUser, log: credentials, payload: subjectOf },
  "provider.alert": {
    alert: "by_default",
    behaviour: false,
    log: { level: "error", message: "a provider needs its operator" },
    payload: ({ provider, key, kind }) => ({ provider: text(provider), key, kind }),
  },
  "quota.exceeded": {
    ...aboutUser,
    ...unlogged,
    counts: () => ["quotaRefusals", ""],
    payload: ({ metric, per }) => ({ metric: text(metric), per: text(per) }),
  },
  "rate_limit.rejected": {
    ...aboutUser,
    ...unlogged,
    alert: "never",
    counts: ({ rule }) => ["rejections", rule],
    payload: ({ rule }) => ({ rule: text(rule) }),
  },
  "admin.changed": {
    ...aboutUser,
    log: { level: "info", message: "change by an administrator" },
    payload: ({ action, by, subject, before, after, reason }) => {
      return { action, by: text(by), subject: text(subject), before, after, reason };
    },
  },
  "trust.changed": {
    ...aboutUser,
    log: { level: "info", message: "a user has moved to another trust step" },
    counts: ({ direction }) => ["trustMoves", direction],
    payload: ({ from, to, direction, score, reasons }) => ({ from, to, direction, score, reasons }),
  },
  "config.reloaded": {
    alert: "if_named",
    behaviour: false,
    log: { level: "info", message: "the config has been reloaded" },
    payload: ({ by, changes, count, restartNeeded }) => {
      return { by: text(by), changes, count, restart_needed: restartNeeded };
    },
  },
  "config.rejected": {
    alert: "if_named",
    behaviour: false,
    log: { level: "error", message: "the config on disk is invalid; the previous one stays in force" },
    payload: ({ by, error }) => ({ by: text(by), error }),
  },
  "overload.began": {
    alert: "by_default",
    behaviour: false,
    log: { level: "warn", message: "overloaded: new requests are refused" },
    payload: ({ level, reason }) => ({ level, reason }),
  },
  "overload.ended": {
    alert: "if_named",
    behaviour: false,
    log: { level: "info", message: "the overload is over" },
    payload: ({ level, reason }) => ({ level, reason }),
  },
  "events.lost": {
    alert: "if_named",
    behaviour: false,
    log: { level: "error", message: "a sink has lost events" },
    payload: ({ sink, count, reasons }) => ({ sink, count, reasons }),
  },
};

/** The row of an event. */
export function rowOf(event: ProxyEvent): EventRow<ProxyEvent> {
  return catalogue[event.type];
}

/** All types of events. */
export const eventTypes = Object.keys(catalogue) as EventType[];
/** What alerts.events may name. */
export const alertTypes = eventTypes.filter((type) => catalogue[type].alert !== "never");
/** What it names by default. */
export const defaultAlerts = alertTypes.filter((type) => catalogue[type].alert === "by_default");

/** Clients choose the model name, at any length. */
const maxTextLength = 128;

/** A text from outside, at a length that logs can take. */
export function text(value: string): string {
  return value.length > maxTextLength ? value.slice(0, maxTextLength) : value;
}

function tenths(ms: number | null): number | null {
  return ms === null ? null : roundToTenths(ms);
}

function roundToTenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}
