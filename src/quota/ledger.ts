import type { Awaitable } from "../lib/awaitable.ts";

/** What a limit counts. */
export type Metric = "requests" | "tokens" | "cost";

/** Over which time a limit counts. `total` never resets. */
export type Per = "day" | "week" | "month" | "total";

/** One limit of a tier. `max` is in requests, tokens, or nano-units of `currency`. */
export interface Limit {
  readonly metric: Metric;
  readonly per: Per;
  readonly max: number;
  /** Only with `metric: "cost"`: amounts in other currencies don't count here. */
  readonly currency?: string;
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
  readonly limit: Limit;
  readonly used: number;
  readonly reserved: number;
  /** Never below 0. */
  readonly remaining: number;
  /** End of the running period in ms since the epoch; null with `per: "total"`. */
  readonly resetAt: number | null;
}

/** A request for a reservation. */
export interface ReserveAsk {
  readonly user: string;
  readonly limits: readonly Limit[];
  readonly requestId: string;
  readonly model: string;
  /** What the request can cost at the most; held from every bucket until commit and settle. */
  readonly upperBound: Charge;
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
  grow(extra: Charge): Awaitable<Limit | null>;
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
  reserve(ask: ReserveAsk): Awaitable<Hold>;
  /** The user's buckets as they are now, in the order of `limits`. */
  buckets(user: string, limits: readonly Limit[]): Awaitable<readonly BucketState[]>;
  /** Whether charges can be recorded; the reason where they can't. For /healthz. */
  health(): { readonly ok: boolean; readonly reason?: string };
  /** Writes all snapshots, syncs and closes the journal. Call it after the last settle. */
  close(): Promise<void>;
}
