/** Everything that happens and that somebody outside the request may want to know. Facts only: no prompts, no secrets. */
export type ProxyEvent = ChatFinished | LoginSucceeded | LoginFailed | QuotaExceeded | RateLimited | RequestFailed;

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

interface QuotaExceeded extends EventBase {
  readonly type: "quota.exceeded";
  readonly user: string;
  readonly metric: string;
  readonly per: string;
}

interface RateLimited extends EventBase {
  readonly type: "rate_limit.rejected";
  readonly user: string;
  /** Which rule refused: "global", "concurrency", ... A fixed set, safe as a metric label. */
  readonly rule: string;
}

/** A request other than a chat was answered with an error. */
interface RequestFailed extends EventBase {
  readonly type: "request.failed";
  readonly code: string;
  readonly status: number;
}

/** Takes events; never throws, never waits. */
export type Emit = (event: ProxyEvent) => void;
