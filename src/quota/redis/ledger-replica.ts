import type { Ledger } from "../ledger.ts";

/**
 * A record of a tag's log, which a function of ledger.lua wrote in the same call as its decision. `body` is JSON; in
 * all but marks it begins with `at`, the time by the clock of Redis that decides in which periods it counts. It is not
 * earlier than the newest window of the account, so counting a tag's records in their order leads to the sums in Redis.
 *
 *   charge  {at, id, user, requestId, model, apiKey?, group?, charge, provider?, price?}: `group` is the name. It counts for the user and for
 *           the group, at the same time, as one record of the journal does. `id` is the reservation's: no other request
 *           has it, while a client may send a request id twice.
 *   settle  {at, id, user, requestId, model, apiKey?, group?, first, final, usage, outcome, estimated, price, provider?}: `at` is
 *           that of its charge; the time of the record itself is when it was settled.
 *   adjust  {at, id, user, added, taken, reason, by}: `user` may be a group's account, as in `reset`. `id` is that of the
 *           call, so that one that is repeated after a loss is known.
 *   reset   {at, id, user, per, reason, by}
 *   doc     {kind, name, text}: a document of identity, without `at`.
 *   mark    {}: counts nothing. A group's account changes in its own tag, while the record of the request is in the
 *           user's: the mark gives that change a number, so that its loss is noticed.
 */
export interface LogRecord {
  /** From 1 in each tag, without gaps but where what was lost has been put back. */
  readonly seq: number;
  readonly kind: "charge" | "settle" | "adjust" | "reset" | "mark" | "doc";
  /** When it was written, in ms since the epoch, by the clock of Redis. */
  readonly writtenAt: number;
  readonly body: string;
}

/** What the ledger over Redis needs of this node's replica of all accounts. */
export interface LedgerReplica extends Pick<
  Ledger,
  "usage" | "usageOfAll" | "recorded" | "missingBefore" | "problems"
> {
  /** The number of the newest record of a tag that this node knows of: drained, or noted. 0 if none. */
  lastSeq(tag: string): number;
  /** Whether anything was ever counted for an account: then its absence from Redis is a loss. */
  hasBegun(account: string): boolean;
  /** A record that a call of this node has just written: known before it is drained, and where Redis loses it. */
  note(tag: string, record: LogRecord): void;
  /**
   * Called where Redis has answered that a tag has no epoch, fewer records than this node has seen, or lacks an account
   * that has begun. Resolves when the tag is whole again; rejects if it cannot be now, and then nothing is sold.
   */
  repair(tag: string): Promise<void>;
  /** Adds work that this process does for each tag that has lost something, before anything is sold there. */
  beforeOpening(work: (tag: string) => Promise<void>): void;
  /** Why this process can take no part any more, until somebody does something; undefined: it can. */
  refusal(): string | undefined;
}
