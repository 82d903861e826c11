import { isAmount } from "../../lib/money.ts";
import type { Awaitable } from "../../lib/awaitable.ts";
import { isCharge, noCharge, restOf, sumOf } from "../amounts.ts";
import type { GroupShare, LedgerRecord, SettleRecord } from "./charge-record.ts";
import type { BucketState, Charge, ChargeSource, Hold, ReserveRequest, Settlement, TokenUsage } from "../ledger.ts";
import type { RequestAccounts } from "./request-accounts.ts";

/** Where a record counts. */
export type CountedAccounts = Pick<RequestAccounts, "user" | "group">;

/** The ledger's operations that a hold needs. */
export interface HoldBackend {
  /** ms since the epoch. */
  now(): number;
  /**
   * Appends a record to the journal, then counts it; returns its number. Throws AppError storage_unavailable, and then
   * it is neither in the journal nor counted, for the user as for the group.
   */
  write(accounts: CountedAccounts, record: LedgerRecord): number;
  /** Resolves when a record is as durable as an acknowledged charge must be; undefined if it already is. */
  safe(seq: number): Promise<void> | undefined;
  /**
   * Appends and counts a final charge; if the journal refuses it, it is retried later, and until then the first charge
   * stands. Never throws.
   */
  settle(accounts: CountedAccounts, record: SettleRecord): void;
}

/** A reservation in memory. One object per request, without closures; every step is synchronous. */
export class MemoryHold implements Hold {
  readonly #backend: HoldBackend;
  readonly #accounts: RequestAccounts;
  readonly #request: ReserveRequest;
  /** The amount still reserved. */
  #reserved: Charge;
  /** The amount reserved in another currency: that of the actual provider, if it differs from the expected one. */
  #alsoReserved: Charge | undefined;
  /** Times and amount of the first charge; undefined before. */
  #committedAt: number | undefined;
  #share: GroupShare | undefined;
  #first: Charge | undefined;
  #settled = false;
  readonly buckets: readonly BucketState[];

  /** Makes the reservation; the caller has checked that there is room. */
  constructor(backend: HoldBackend, accounts: RequestAccounts, request: ReserveRequest) {
    this.#backend = backend;
    this.#accounts = accounts;
    this.#request = request;
    this.#reserved = request.upperBound;
    accounts.hold(request.upperBound);
    this.buckets = this.#currentBuckets();
  }

  get committed(): boolean {
    return this.#committedAt !== undefined;
  }

  commit(charge: Charge, source?: ChargeSource): Awaitable<readonly BucketState[]> {
    if (this.#committedAt !== undefined || this.#settled) return this.#currentBuckets();
    if (!isCharge(charge)) throw new RangeError("a charge must be of safe integers >= 0");
    const { user, requestId, model, apiKey } = this.#request;
    const now = this.#backend.now();
    const at = this.#accounts.lookAt(now);
    const group = this.#accounts.shareAt(now);
    const { provider, price } = source ?? {};
    const record = { kind: "charge", at, user, requestId, model, charge, apiKey, group, provider, price } as const;
    const seq = this.#backend.write(this.#accounts, record);
    this.#committedAt = at;
    this.#share = group;
    this.#first = charge;
    const rest = restOf(this.#reserved, charge);
    this.#accounts.release(this.#reserved);
    this.#accounts.hold(rest);
    this.#reserved = rest;
    const buckets = this.#currentBuckets();
    return this.#backend.safe(seq)?.then(() => buckets) ?? buckets;
  }

  grow(extra: Charge): BucketState | null {
    if (this.#settled) return null;
    if (!isCharge(extra)) throw new RangeError("a charge must be of safe integers >= 0");
    this.#accounts.lookAt(this.#backend.now());
    const charged = { user: this.#committedAt, group: this.#share?.at };
    const blocking = this.#accounts.blocking(this.#request.limits, extra, charged);
    if (blocking !== undefined) return blocking;
    if (extra.currency === this.#reserved.currency) {
      this.#reserved = sumOf(this.#reserved, extra);
    } else {
      const also = this.#alsoReserved ?? noCharge(extra.currency);
      if (extra.currency !== also.currency) throw new RangeError("a hold has two currencies at the most");
      this.#alsoReserved = sumOf(also, extra);
    }
    this.#accounts.hold(extra);
    return null;
  }

  settle(settlement: Settlement): readonly BucketState[] {
    if (this.#settled) return this.#currentBuckets();
    this.#settled = true;
    this.#accounts.release(this.#reserved);
    if (this.#alsoReserved !== undefined) this.#accounts.release(this.#alsoReserved);
    if (this.#committedAt !== undefined && this.#first !== undefined)
      this.#replaceCharge(this.#committedAt, this.#first, settlement);
    return this.#currentBuckets();
  }

  #currentBuckets(): readonly BucketState[] {
    this.#accounts.lookAt(this.#backend.now());
    return this.#request.limits.map((limit) => this.#accounts.bucket(limit));
  }

  #replaceCharge(at: number, first: Charge, settlement: Settlement): void {
    const { charge: final, usage, outcome, estimated, price, provider } = settlement;
    const { user, requestId, model, apiKey } = this.#request;
    const settledAt = Math.max(at, this.#backend.now());
    // Written out in full: spreading objects costs microseconds here.
    this.#backend.settle(this.#accounts, {
      kind: "settle",
      at,
      settledAt,
      user,
      requestId,
      model,
      first,
      final,
      usage,
      outcome,
      estimated,
      price,
      apiKey,
      group: this.#share,
      provider,
    });
  }
}

/** Whether all parts of a usage are amounts. */
export function isUsage({ input, cached, output, reasoning }: TokenUsage): boolean {
  return isAmount(input) && isAmount(cached) && isAmount(output) && isAmount(reasoning);
}
