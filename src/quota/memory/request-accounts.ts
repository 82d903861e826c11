import type { BucketState, Charge, QuotaLimit } from "../ledger.ts";
import type { GroupShare } from "./charge-record.ts";
import type { UserQuota } from "./user-quota.ts";

/** When a charge counts, in ms since the epoch: an account whose newest period begins later than now counts it then. */
interface ChargeTimes {
  readonly user: number | undefined;
  readonly group: number | undefined;
}

/** The accounts that one request counts in: its user's and, if it is in a group, the group's. Both or neither. */
export class RequestAccounts {
  readonly user: UserQuota;
  readonly group: UserQuota | undefined;
  /** The name of the group, without the @ of its account. */
  readonly #groupName: string | undefined;
  readonly #apiKey: string | undefined;

  /** @param apiKey the id of the request's API key; undefined for an access token */
  constructor(
    user: UserQuota,
    group: UserQuota | undefined,
    request: { readonly apiKey?: string | undefined; readonly group?: string | undefined },
  ) {
    this.user = user;
    this.group = group;
    this.#groupName = request.group;
    this.#apiKey = request.apiKey;
  }

  /** As UserQuota.lookAt, for both. Returns the user's time. */
  lookAt(nowMs: number): number {
    this.group?.lookAt(nowMs);
    return this.user.lookAt(nowMs);
  }

  /** How a charge made at this time counts for the group; undefined without one. */
  shareAt(nowMs: number): GroupShare | undefined {
    if (this.group === undefined || this.#groupName === undefined) return undefined;
    return { name: this.#groupName, at: this.group.lookAt(nowMs) };
  }

  /**
   * The first limit without room for `request`. Call lookAt() first. Limits in another currency don't count.
   * @param charged the times of the charge that it is added to: the periods of that must have room as well
   */
  blocking(limits: readonly QuotaLimit[], request: Charge, charged?: ChargeTimes): BucketState | undefined {
    for (const limit of limits) {
      const account = this.#accountOf(limit);
      const chargedAt = account === this.user ? charged?.user : charged?.group;
      if (!account.hasRoom(limit, request, chargedAt)) return account.bucket(limit, chargedAt);
    }
    return undefined;
  }

  /** The state of a limit. Call lookAt() first. */
  bucket(limit: QuotaLimit): BucketState {
    return this.#accountOf(limit).bucket(limit);
  }

  hold(charge: Charge): void {
    this.user.hold(charge, this.#apiKey);
    this.group?.hold(charge, undefined);
  }

  /** Releases a reservation. */
  release(charge: Charge): void {
    this.user.release(charge, this.#apiKey);
    this.group?.release(charge, undefined);
  }

  #accountOf({ group }: QuotaLimit): UserQuota {
    if (group === undefined) return this.user;
    if (this.group === undefined || group !== this.#groupName) throw new RangeError("a limit of another group");
    return this.group;
  }
}
