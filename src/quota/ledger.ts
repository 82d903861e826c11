import type { Awaitable } from "../lib/awaitable.ts";
import type { JournalPiece, JournalPosition } from "../lib/journal/journal-stream.ts";
import type { CountMetric, Metric } from "./metrics.ts";
import type { Outcome, UsageOutcome } from "./outcomes.ts";
import type { Per } from "./periods.ts";

/** One limit of a tier. `max` is a count, or in nano-units of `currency`. */
export interface QuotaLimit {
  readonly metric: Metric;
  readonly per: Per;
  readonly max: number;
  /** Only with `metric: "cost"`: amounts in other currencies don't count. */
  readonly currency?: string;
  /** Counts only requests through the API key with this id. */
  readonly apiKey?: string;
  /** Counts what all members of the group of this name use in it. */
  readonly group?: string;
}

/** An amount of each metric to reserve or to charge: safe integers >= 0; `cost` in nano-units (1e-9) of `currency`. */
export interface Charge extends Readonly<Record<Metric, number>> {
  readonly currency: string;
}

/** Tokens as the provider reported them; `output` includes `reasoning`, `input` includes `cached`. */
export interface TokenUsage {
  readonly input: number;
  readonly cached: number;
  readonly output: number;
  readonly reasoning: number;
}

/** The current state of a user's bucket. */
export interface BucketState {
  readonly limit: QuotaLimit;
  readonly used: number;
  readonly reserved: number;
  /** Never below 0. */
  readonly remaining: number;
  /** End of the running period in ms since the epoch; null with `per: "total"`. */
  readonly resetAt: number | null;
}

/** A user's file that cannot be used. */
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
  /** The id of the API key of the request; undefined for an access token. */
  readonly apiKey?: string | undefined;
  /** The name of the group that the request counts for as well; undefined: none. Those of the limits must be this one. */
  readonly group?: string | undefined;
  /** The maximum cost of the request; reserved in every bucket until commit and settle. */
  readonly upperBound: Charge;
}

/** Added to or, if negative, subtracted from what counts as used. Safe integers; `cost` in nano-units of `currency`. */
export interface Delta extends Readonly<Record<Metric, number>> {
  readonly currency: string;
}

/** The reason and author of a manual quota change; kept in the journal. */
export interface ChangeNote {
  readonly reason: string;
  readonly by: string;
}

/** Manual changes; negative if subtracted. */
export interface Adjusted extends Readonly<Record<CountMetric, number>> {
  /** Nano-units by currency. */
  readonly cost: Readonly<Record<string, number>>;
}

/** The usage of one model through one API key on one day, and the manual changes. */
export interface UsageRow extends Readonly<Record<CountMetric, number>> {
  /** YYYY-MM-DD in quota.timezone: the day of the first charge, whenever the response ended. */
  readonly day: string;
  /** The name that the client used; "adjust" for manual changes, "other" beyond 200 models a day. */
  readonly model: string;
  /**
   * The id of the API key; "" for access tokens, for manual changes, and in sums over all users. Of a group: the member.
   */
  readonly key: string;
  /** As charged: multiplied by the model's weight. */
  readonly requests: number;
  /** As charged: input and output. Rolled-back requests appear only in `outcomes`. */
  readonly tokens: number;
  readonly input: number;
  readonly cached: number;
  readonly output: number;
  readonly reasoning: number;
  /** Nano-units by currency. */
  readonly cost: Readonly<Record<string, number>>;
  /** Not included in the fields above; null if there were no manual changes. */
  readonly adjusted: Adjusted | null;
  /** How many chats had each outcome. */
  readonly outcomes: Readonly<Partial<Record<UsageOutcome, number>>>;
  /** Chats whose usage is estimated, including unsettled ones. */
  readonly estimated: number;
  /** Chats that are charged and have not ended: they are running, or the process crashed. */
  readonly unsettled: number;
}

/** Days, both inclusive, as YYYY-MM-DD in quota.timezone. */
export interface UsageSpan {
  readonly from: string;
  readonly to: string;
}

/** The final state of a request. */
export interface Settlement {
  readonly outcome: Outcome;
  /** The final charge in full (not a difference). */
  readonly charge: Charge;
  readonly usage: TokenUsage;
  /** True if `usage` was estimated rather than reported by the provider. */
  readonly estimated: boolean;
  /** Identifies the price used for the cost, for the record; "" if there is none. */
  readonly price: string;
  /** The provider whose answer it is, for the record; absent if it is not known. */
  readonly provider?: string | undefined;
}

/** What a first charge is made for, for its record. */
export interface ChargeSource {
  /** The provider that sent the first event. */
  readonly provider: string;
  /** As in a Settlement. */
  readonly price: string;
}

/**
 * A reservation on its way to a charge: reserve -> commit (first data event) -> settle. Settle without commit gives
 * everything back and charges nothing.
 */
export interface Hold {
  /** Whether commit() has been called. */
  readonly committed: boolean;
  /** The user's buckets right after the reservation, in the order of its limits. */
  readonly buckets: readonly BucketState[];
  /**
   * Makes the first charge, which stands if the process crashes before settle: the request, and the estimated prompt.
   * It is in the journal when this returns, and on disk if durability is `strict`. Calling it again does nothing.
   * Throws storage_unavailable if the journal refuses the record. Returns the buckets as they are then.
   */
  commit(first: Charge, source?: ChargeSource): Awaitable<readonly BucketState[]>;
  /**
   * Reserves more, in all buckets or in none. Returns the bucket without room for it, or null if it was reserved. One
   * call at a time: the caller waits for the result.
   */
  grow(extra: Charge): Awaitable<BucketState | null>;
  /**
   * Replaces the first charge with the final one and releases the rest. Exactly once: later calls do nothing. A ledger
   * in memory never throws here. Where the result of commit() was lost, this still has the last word. Returns the
   * buckets as they are then.
   */
  settle(settlement: Settlement): Awaitable<readonly BucketState[]>;
}

/**
 * A part of what was recorded. `lack`: here records are missing that other processes have: of all of the time before, or
 * of the time in which this process did not follow the others.
 */
export type RecordedPiece = JournalPiece | { readonly kind: "lack"; readonly isStart: boolean };

/** Whether charges can be recorded; the reason if they can't. */
export interface LedgerHealth {
  readonly ok: boolean;
  readonly reason?: string;
}

/**
 * Each user's usage, and each group's. The only place where charges are made. A group has an account beside the users',
 * whose name groupAccount returns: where a verb takes a user's name, that of such an account does as well, except in
 * `reserve`.
 */
export interface Ledger {
  /**
   * Reserves the upper bound in all buckets of the user and of the group, or in none. Throws AppError quota_exceeded
   * (402, with details) or storage_unavailable (503). The request id identifies the reservation: where a result may
   * have been lost, an implementation may repeat its call with it, and a reservation that nobody knows of must lapse by
   * itself.
   */
  reserve(request: ReserveRequest): Awaitable<Hold>;
  /** The current buckets of the user, and of groups that the limits name, in the order of `limits`. */
  buckets(user: string, limits: readonly QuotaLimit[]): Awaitable<readonly BucketState[]>;
  /**
   * Changes what counts as used in all running periods, as if it had been used (or not) now: for imports and refunds. A
   * period's amount stops at 0; the usage history shows the full change, separate from what was used. Throws RangeError
   * for an invalid amount, currency or user name, storage_unavailable if it can't be recorded.
   */
  adjust(user: string, delta: Delta, note: ChangeNote): Awaitable<void>;
  /**
   * Restarts a user's running period: nothing counts as used in it, and its end stays the same. Charges made before no
   * longer count in it even if they are settled later. The usage history keeps them. Throws as adjust().
   */
  reset(user: string, per: Per, note: ChangeNote): Awaitable<void>;
  /**
   * The usage, one row for each day, model and API key, in this order. Days older than usage.keep_days are gone.
   * @param query without a user: the usage of all users together
   */
  usage(query: UsageSpan & { readonly user?: string | undefined }): Awaitable<readonly UsageRow[]>;
  /** Each user's usage, ordered by name. Reads one user's file at a time, during iteration. */
  usageOfAll(span: UsageSpan): AsyncIterable<{ readonly user: string; readonly row: UsageRow }>;
  /**
   * Everything that was charged, settled or changed by hand by the first call of next(), as it was recorded, oldest first,
   * for as long as it is kept (storage.journal_archive_days). Each record is that of decodeLedgerRecord.
   * @param after where an earlier reading of this ledger has ended: only what follows comes
   */
  recorded(after?: JournalPosition): AsyncIterable<RecordedPiece>;
  /**
   * The time, in ms since the epoch, before which charges of other processes may be missing from the usage and from what
   * was recorded; null: none are.
   */
  missingBefore(): Awaitable<number | null>;
  /** Users' files that cannot be used: these users get nothing billable. For /healthz. */
  problems(): Awaitable<readonly QuotaProblem[]>;
  /** Whether charges can be recorded; the reason if they can't. For /healthz. */
  health(): Awaitable<LedgerHealth>;
  /** Writes all snapshots, syncs and closes the journal. Call it after the last settle. */
  close(): Promise<void>;
}
