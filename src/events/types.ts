/** Everything that happens and that somebody outside the request may want to know. Facts only: no prompts, no secrets. */
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
  | AdminChanged;

interface EventBase {
  /** ms since the epoch. */
  readonly at: number;
  /** Equals the X-Request-ID of the request that caused it. */
  readonly traceId: string;
  /** The client's address. */
  readonly ip: string;
}

/** A chat request that got past authentication has ended, well or not. Emitted exactly once for each. */
export interface ChatFinished extends EventBase {
  readonly type: "chat.finished";
  readonly user: string;
  /** The id of the API key that it came with; "" for an access token. */
  readonly keyId: string;
  /** chat, beta_chat, completions, messages or embeddings; "" where the request was refused as invalid. */
  readonly api: string;
  readonly model: string;
  /** "" where the request was refused before a provider was chosen. */
  readonly provider: string;
  readonly stream: boolean;
  /** The ledger's outcome. */
  readonly outcome: string;
  /** "ok", or the error code that the client got. */
  readonly code: string;
  /** HTTP status that the client got; 0 where it left before one was sent. */
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
  /** ms from dispatch to the first data event; null where none came. */
  readonly firstEventMs: number | null;
  /** ms from the first data event to the end of the provider's answer; null where none came. */
  readonly generationMs: number | null;
  /** ms from the arrival of the request to its end. */
  readonly durationMs: number;
  /** Attempts at providers beyond the first. */
  readonly retries: number;
}

interface LoginSucceeded extends EventBase {
  readonly type: "login.succeeded";
  readonly user: string;
}

export interface LoginFailed extends EventBase {
  readonly type: "login.failed";
  /** The account that was tried, only if it has a valid name; it may not exist. */
  readonly user: string;
  /** Whether an account of that name exists; keeps log folders from being made for invented names. */
  readonly known: boolean;
  readonly result: "failure" | "blocked";
  readonly reason: string;
}

/** An account or an address has to wait for its next login. Said when the waits begin, and when they are the longest. */
export interface LoginLocked extends EventBase {
  readonly type: "login.locked";
  /** The account that was tried last; it may not exist. */
  readonly user: string;
  /** Whether an account of that name exists. */
  readonly known: boolean;
  /** What waits: the account wherever it is tried from, the address whatever it tries, or both together. */
  readonly scope: "account" | "address" | "known_address";
  /** Failed logins so far. */
  readonly failures: number;
  readonly escalation: "begun" | "longest";
  /** ms until the next attempt. */
  readonly waitMs: number;
}

/** An operator has forgiven an account its failed logins. */
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

/** What a route is for. A closed set, safe as a metric label; `other` is what no route answers. */
export const routeGroups = ["api", "models", "auth", "admin", "ops", "other"] as const;
export type RouteGroup = (typeof routeGroups)[number];

/** A request that emits no event of its own (all but chats) was answered, well or with an error. */
interface RequestFinished extends EventBase {
  readonly type: "request.finished";
  readonly route: RouteGroup;
  /** "ok", or the error code that the client got. */
  readonly code: string;
  readonly status: number;
}

/** Something about the ways in of a user has changed, or was found to be in strange hands. */
interface CredentialChanged extends EventBase {
  readonly type:
    "session.reuse_detected" | "session.ended" | "api_key.created" | "api_key.revoked" | "password.changed";
  readonly user: string;
  /** The public id of the session or key; "*" for all sessions, "" for a password. */
  readonly subject: string;
}

/** A provider needs its operator: it refuses the proxy's key, or its account is empty. At most one a minute and kind. */
export interface ProviderAlert extends EventBase {
  readonly type: "provider.alert";
  readonly provider: string;
  /** Which of its keys, from 0. */
  readonly key: number;
  readonly kind: "key_refused" | "no_balance";
}

/** What an administrator can do, as it stands in the audit log. */
export type AdminAction =
  | "user.created"
  | "user.changed"
  | "user.archived"
  | "user.password_reset"
  | "user.login_unlocked"
  | "quota.granted"
  | "quota.adjusted"
  | "quota.reset"
  | "quota.brought_back"
  | "sessions.revoked"
  | "api_key.revoked"
  | "provider.drained"
  | "provider.restored";

/** Somebody has changed something for others, by the admin API or on the command line. */
export interface AdminChanged extends EventBase {
  readonly type: "admin.changed";
  readonly action: AdminAction;
  /** Who did it: a user name, or `cli:NAME` for the system's user who ran the command. */
  readonly by: string;
  /** The user whom it concerns; null where it concerns none. */
  readonly user: string | null;
  /** What was changed, where it is not the user alone: a session, a key, a provider, a limit; else "". */
  readonly subject: string;
  /** What was changed, as it was; null for what is new. Hashes and other secrets are left out by whoever makes it. */
  readonly before: Readonly<Record<string, unknown>> | null;
  /** The same, as it is now; null for what is gone. */
  readonly after: Readonly<Record<string, unknown>> | null;
  /** Why, where somebody said so; else "". */
  readonly reason: string;
}

/** Takes events; never throws, never waits. */
export type Emit = (event: ProxyEvent) => void;
