import { addAmounts } from "../../lib/money.ts";
import { RedisUnavailableError } from "../../lib/redis/redis.ts";
import { isCharge } from "../amounts.ts";
import type { BucketState, Charge, ChargeSource, Hold, QuotaLimit, ReserveRequest, Settlement } from "../ledger.ts";
import { isUsage } from "../memory/memory-hold.ts";
import { bucketOf, limitName } from "./account-calls.ts";
import type { HeldAmounts } from "./hold-calls.ts";
import { amountsOf, sumOf } from "./redis-hold.ts";
import { type Slice, spend, unspend } from "./slices.ts";

/** A request, and what it spends of. */
interface AwayRequest {
  readonly request: ReserveRequest;
  readonly slice: Slice;
}

/** Where the charges go that are made while Redis is away. */
export interface AwayCharges {
  /** Notes the first charge. Rejects if it is not on disk then: it is not made. */
  charge(id: string, of: AwayRequest, first: Charge, source: ChargeSource | undefined): Promise<void>;
  /** Notes the final charge; null: the first one stands. Never rejects. */
  settle(id: string, settlement: Settlement | null): Promise<void>;
}

/** A reservation from a slice. As a class, since one is made for each request. */
export class AwayHold implements Hold {
  readonly buckets: readonly BucketState[];
  readonly #charges: AwayCharges;
  readonly #request: ReserveRequest;
  readonly #slice: Slice;
  readonly #id: string;
  #held: HeldAmounts;
  #isCharged = false;
  #isSettled = false;

  /**
   * @param id no other request has it
   * @throws RedisUnavailableError if the slice has no room
   */
  constructor(charges: AwayCharges, request: ReserveRequest, slice: Slice, id: string) {
    this.#held = amountsOf(request.upperBound);
    if (!spend(slice, this.#held))
      throw new RedisUnavailableError(`Redis is away, and what ${request.user} has in advance is not enough`);
    slice.isSpent = true;
    slice.open++;
    this.#charges = charges;
    this.#request = request;
    this.#slice = slice;
    this.#id = id;
    this.buckets = request.limits.map((limit, index) => knownBucket(limit, slice.buckets[index]));
  }

  get committed(): boolean {
    return this.#isCharged;
  }

  /** It is on disk before it is shown, whatever the durability: nobody else knows of it. */
  async commit(first: Charge, source?: ChargeSource): Promise<readonly BucketState[]> {
    if (this.#isCharged || this.#isSettled) return this.buckets;
    if (!isCharge(first)) throw new RangeError("a charge must be of safe integers >= 0");
    await this.#charges.charge(this.#id, { request: this.#request, slice: this.#slice }, first, source);
    this.#isCharged = true;
    return this.buckets;
  }

  grow(extra: Charge): BucketState | null {
    if (this.#isSettled) return null;
    if (!isCharge(extra)) throw new RangeError("a charge must be of safe integers >= 0");
    const more = amountsOf(extra);
    if (!spend(this.#slice, more)) {
      const { left } = this.#slice;
      const isFull = (limit: QuotaLimit): boolean => (more[limitName(limit)] ?? 0) > (left.get(limitName(limit)) ?? 0);
      return this.buckets.find(({ limit }) => isFull(limit)) ?? null;
    }
    this.#held = sumOf(this.#held, extra);
    return null;
  }

  async settle(settlement: Settlement): Promise<readonly BucketState[]> {
    if (this.#isSettled) return this.buckets;
    this.#isSettled = true;
    if (!this.#isCharged) {
      unspend(this.#slice, this.#held);
      this.#slice.open--;
      return this.buckets;
    }
    const makesSense = isCharge(settlement.charge) && isUsage(settlement.usage);
    if (makesSense) unspend(this.#slice, difference(this.#held, amountsOf(settlement.charge)));
    await this.#charges.settle(this.#id, makesSense ? settlement : null);
    return this.buckets;
  }
}

function difference(held: HeldAmounts, final: HeldAmounts): HeldAmounts {
  const rest: Record<string, number> = { ...held };
  for (const [name, amount] of Object.entries(final)) rest[name] = addAmounts(rest[name] ?? 0, -amount);
  return rest;
}

/** What is known of a limit; without a word of it, as if nothing had been used. */
function knownBucket(limit: QuotaLimit, known: BucketState | undefined): BucketState {
  return known?.limit.metric === limit.metric && known.limit.per === limit.per
    ? { ...known, limit }
    : bucketOf(limit, 0, 0, null);
}
