import type { Awaitable } from "../lib/awaitable.ts";

/** What a limit counts. */
export type Metric = "requests" | "tokens" | "cost";

/** Over which time a limit counts. `total` never resets. */
export type Per = "day" | "week" | "month" | "total";

/** One limit of a tier. `max` is in requests, tokens, or nano-units of `currency`. */
export interface QuotaLimit {
  readonly metric: Metric;
  readonly per: Per;
  readonly max: number;
  /** Only with `metric: "cost"`: amounts in other currencies don't count here. */
  readonly currency?: string;
  /** Counts only what comes through the API key of this id. */
  readonly apiKey?: string;
}

/** An amount to hold or to charge. All safe integers >= 0; `cost` in nano-units (1e-9) of `currency`. */
export interface Charge {
  readonly requests: number;
  readonly tokens: number;
  readonly cost: number;
  readonly currency: string;
}

/** Tokens as the provider reported them; `output` includes `reasoning`, `input` includes `cached`. */
export interface TokenUsage {
  readonly input: number;
  readonly cached: number;
  readonly output: number;
  readonly reasoning: number;
}

/** How a chat request ended, whichever way it took. */
export type Outcome =
  "completed" | "client_gone" | "upstream_failed" | "reader_stalled" | "shutdown" | "refused" | "quota_cut";

/** One bucket of a user as it stands now. */
export interface BucketState {
  readonly limit: QuotaLimit;
  readonly used: number;
  readonly reserved: number;
  /** Never below 0. */
  readonly remaining: number;
  /** End of the running period in ms since the epoch; null with `per: "total"`. */
  readonly resetAt: number | null;
}

/** A file of a user's that cannot be used. */
export interface QuotaProblem {
  /** Its name in the users folder. */
  readonly file: string;
  readonly reason: string;
}

/** A request for a reservation. */
export interface ReserveRequest {
  readonly user: string;
  readonly limits: readonly QuotaLimit[];
  readonly requestId: string;
  readonly model: string;
  /** The id of the API key that it comes through; undefined for an access token. */
  readonly apiKey?: string | undefined;
  /** What the request can cost at the most; held from every bucket until commit and settle. */
  readonly upperBound: Charge;
}

/** What is added to or, below 0, taken from what counts as used. Safe integers; `cost` in nano-units of `currency`. */
export interface Delta {
  readonly requests: number;
  readonly tokens: number;
  readonly cost: number;
  readonly currency: string;
}

/** Why a quota was changed by hand, and who did it; kept in the journal. */
export interface ChangeNote {
  readonly reason: string;
  readonly by: string;
}

/** How something came into the usage history: the outcome of a chat, or a change by hand. */
export type UsageOutcome = Outcome | "adjust" | "reset";

/** What was added by hand, or taken away where it is below 0. */
export interface Adjusted {
  readonly requests: number;
  readonly tokens: number;
  /** Nano-units by currency. */
  readonly cost: Readonly<Record<string, number>>;
}

/** What was used of one model through one API key on one day, and what was changed by hand. */
export interface UsageRow {
  /** YYYY-MM-DD in quota.timezone: the day of the first charge, whenever the answer ended. */
  readonly day: string;
  /** As the client named it; "adjust" for changes by hand, "other" beyond 200 models a day. */
  readonly model: string;
  /** The id of the API key; "" for access tokens, for changes by hand, and where all users are added up. */
  readonly key: string;
  /** As charged: times the model's weight. */
  readonly requests: number;
  /** As charged: input and output. What was rolled back is in no figure but `outcomes`. */
  readonly tokens: number;
  readonly input: number;
  readonly cached: number;
  readonly output: number;
  readonly reasoning: number;
  /** Nano-units by currency. */
  readonly cost: Readonly<Record<string, number>>;
  /** Is in none of the figures above; null where nothing was changed by hand. */
  readonly adjusted: Adjusted | null;
  /** How many chats ended in which way. */
  readonly outcomes: Readonly<Partial<Record<UsageOutcome, number>>>;
  /** Chats whose figures are estimates, the unsettled ones included. */
  readonly estimated: number;
  /** Chats that are charged and have not ended: they are running, or the process died. */
  readonly unsettled: number;
}

/** Days, both included, as YYYY-MM-DD in quota.timezone. */
export interface UsageSpan {
  readonly from: string;
  readonly to: string;
}

/** The last word on a request. */
export interface Settlement {
  readonly outcome: Outcome;
  /** The final charge in full (not a difference). */
  readonly charge: Charge;
  readonly usage: TokenUsage;
  /** True where `usage` was not reported by the provider but estimated. */
  readonly estimated: boolean;
  /** Names the price by which the cost was worked out, for the record; "" where there is none. */
  readonly price: string;
}

/**
 * A reservation on its way to a charge: reserve -> commit (first data event) -> settle.
 * Settle without commit gives everything back and charges nothing.
 */
export interface Hold {
  /** Whether commit() has been called. */
  readonly committed: boolean;
  /**
   * Makes the first charge, which stands if the process dies before settle: the request, and the prompt as estimated.
   * It is in the journal when this returns, and on disk when durability is `strict`.
   * Calling it again does nothing. Throws storage_unavailable if the journal cannot take it.
   */
  commit(first: Charge): Awaitable<void>;
  /**
   * Holds more, from all buckets or from none. Returns the limit that has no room for it, or null where it is held.
   */
  grow(extra: Charge): Awaitable<QuotaLimit | null>;
  /** Replaces the first charge by the final one and frees the rest. Exactly once: later calls do nothing. Never throws. */
  settle(settlement: Settlement): Awaitable<void>;
  /** The user's buckets as they are now, for the X-Quota headers. */
  buckets(): readonly BucketState[];
}

/** Who has used how much. The only place where charges are made. */
export interface Ledger {
  /**
   * Takes the upper bound from all of the user's buckets, or from none.
   * Throws AppError quota_exceeded (402, with details) or storage_unavailable (503).
   */
  reserve(request: ReserveRequest): Awaitable<Hold>;
  /** The user's buckets as they are now, in the order of `limits`. */
  buckets(user: string, limits: readonly QuotaLimit[]): Awaitable<readonly BucketState[]>;
  /**
   * Changes what counts as used in all running periods, as if it had been used (or not) now: for imports and for giving
   * back. A period's amount stops at 0; the usage history shows the change in full, apart from what was used.
   * Throws RangeError for what is no amount, currency or user name, storage_unavailable if it can't be recorded.
   */
  adjust(user: string, delta: Delta, note: ChangeNote): Awaitable<void>;
  /**
   * Begins a user's running period anew: nothing is used in it, and it ends when it would have ended. Charges made
   * before are forgotten in it even if they are settled later. The usage history keeps them. Throws as adjust().
   */
  reset(user: string, per: Per, note: ChangeNote): Awaitable<void>;
  /**
   * What was used, one row for each day, model and API key, in their order. Days beyond usage.keep_days are gone.
   * @param query without a user: what all have used together
   */
  usage(query: UsageSpan & { readonly user?: string | undefined }): Awaitable<readonly UsageRow[]>;
  /** What each user has used, in the order of their names. Reads one user's file at a time, as it is iterated. */
  usageOfAll(span: UsageSpan): AsyncIterable<{ readonly user: string; readonly row: UsageRow }>;
  /** Users' files that cannot be used: their users get nothing billable. For /healthz. */
  problems(): readonly QuotaProblem[];
  /** Whether charges can be recorded; the reason where they can't. For /healthz. */
  health(): { readonly ok: boolean; readonly reason?: string };
  /** Writes all snapshots, syncs and closes the journal. Call it after the last settle. */
  close(): Promise<void>;
}
