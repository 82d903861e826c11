import { addAmounts } from "../../lib/money.ts";
import { isCharge } from "../amounts.ts";
import type { BucketState, Charge, ChargeSource, Hold, QuotaLimit, ReserveRequest, Settlement } from "../ledger.ts";
import { countMetrics } from "../metrics.ts";
import { isUsage } from "../memory/memory-hold.ts";
import { bucketOf, limitName } from "./account-calls.ts";
import {
  type FinalCharge,
  type FirstCharge,
  firstRefusal,
  type HeldAmounts,
  type Holder,
  type HoldCalls,
  HoldEndedError,
  type HoldPart,
} from "./hold-calls.ts";

/** The ledger's operations that a hold needs. */
export interface HoldBackend {
  readonly calls: HoldCalls;
  /** Whether a charge must be as durable as Redis can make it before it counts as made, and on how many replicas. */
  readonly strict: boolean;
  readonly replicas: number;
  /** Monotonic ms. */
  monotonic(): number;
  /** Called once the parts hold nothing any more. */
  released(parts: readonly HoldPart[]): void;
  /** Repeats a settlement that failed until it succeeds; for one of nothing, its lease suffices. */
  settleLater(late: LateSettlement): void;
  /** A final charge that makes no sense. */
  unusable(request: ReserveRequest, settlement: Settlement): void;
}

/** A final charge that Redis has not accepted, as far as is known. */
export interface LateSettlement {
  readonly request: ReserveRequest;
  readonly settlement: Settlement;
  readonly parts: readonly HoldPart[];
  /** Tries once more. Rejects if that fails. */
  settle(fresh: boolean): Promise<unknown>;
}

interface Commit extends FirstCharge {
  /** Monotonic ms. */
  readonly startedAt: number;
  /** Whether it is to be made by settle where it was not made in time. */
  stands: boolean;
  /** Its own call: not sent yet, sent, or needless since settle makes it. */
  call: "open" | "sent" | "needless";
}

/**
 * A reservation in Redis, of a user's account and, as a second part, of a group's. One call at a time, as the port
 * says; what was sent and not awaited is awaited by the next call. Where a request ends in the turn of the event loop
 * in which its first charge was made, as those with short answers do, one call makes both charges.
 */
export class RedisHold implements Hold, Holder {
  readonly buckets: readonly BucketState[];
  readonly #backend: HoldBackend;
  readonly #request: ReserveRequest;
  readonly #parts: readonly HoldPart[];
  #held: HeldAmounts;
  #known: readonly BucketState[];
  #commit: Commit | undefined;
  #settled = false;
  /** What is on its way; never rejects. */
  #pending: Promise<unknown> | undefined;

  /** @param parts the user's, and the group's if there is one, whose reservations were made */
  constructor(
    backend: HoldBackend,
    request: ReserveRequest,
    parts: readonly HoldPart[],
    buckets: readonly BucketState[],
  ) {
    this.#backend = backend;
    this.#request = request;
    this.#parts = parts;
    this.#held = amountsOf(request.upperBound);
    this.buckets = this.#known = buckets;
  }

  get committed(): boolean {
    return this.#commit?.stands === true;
  }

  /** How much a part may still be charged: with the first charge, unless it is certain that this was made. */
  heldOf({ chargedAt }: HoldPart): HeldAmounts {
    const first = chargedAt === undefined ? this.#commit?.first : undefined;
    return first === undefined ? this.#held : sumOf(this.#held, first);
  }

  /**
   * Not strict, it answers at once, with the buckets as they would be if nobody else had changed them.
   * @param ago how long ago it was made, in ms
   */
  async commit(first: Charge, source?: ChargeSource, ago = 0): Promise<readonly BucketState[]> {
    if (this.#commit !== undefined || this.#settled) return this.#known;
    if (!isCharge(first)) throw new RangeError("a charge must be of safe integers >= 0");
    const { strict } = this.#backend;
    const startedAt = this.#backend.monotonic() - ago;
    const body = this.#recordOf({ charge: first, ...source });
    const call = strict || this.#pending !== undefined ? "sent" : "open";
    const commit: Commit = { first, body, ago, startedAt, stands: !strict, call };
    this.#commit = commit;
    const before = this.#held;
    const charged = amountsOf(first);
    const rest = (this.#held = restOf(before, charged));
    if (!strict) this.#known = this.#known.map((bucket) => moved(bucket, charged, {}, before, rest));
    const { promise, ended } = tracked(this.#after(() => this.#makeCharge(commit)));
    this.#pending = ended;
    if (!strict) return this.#known;
    this.#known = await promise;
    commit.stands = true;
    return this.#known;
  }

  async grow(extra: Charge): Promise<BucketState | null> {
    if (this.#settled) return null;
    if (!isCharge(extra)) throw new RangeError("a charge must be of safe integers >= 0");
    const target = sumOf(this.#held, extra);
    if (Object.keys(target).length > countMetrics.length + 2)
      throw new RangeError("a hold has two currencies at the most");
    const before = this.#held;
    const results = await this.#after(() =>
      Promise.allSettled(this.#parts.map((part) => this.#backend.calls.grow(part, target, extra))),
    );
    const blocking = firstRefusal(this.#request.limits, results.map(valueOf));
    const failed = results.find((result) => result.status === "rejected");
    if (blocking === undefined && failed === undefined) {
      this.#held = target;
      return null;
    }
    const grown = this.#parts.filter((_, index) => valueOf(results[index]) === null);
    this.#pending = Promise.allSettled(grown.map((part) => this.#backend.calls.grow(part, before, null)));
    if (failed?.status === "rejected") throw failed.reason;
    return blocking === undefined ? null : { ...blocking.bucket, limit: blocking.limit };
  }

  async settle(settlement: Settlement): Promise<readonly BucketState[]> {
    if (this.#settled) return this.#known;
    this.#settled = true;
    const backend = this.#backend;
    const commit = this.#commit;
    const makesSense = isCharge(settlement.charge) && isUsage(settlement.usage);
    if (commit !== undefined && !makesSense) backend.unusable(this.#request, settlement);
    const final = makesSense ? settlement.charge : undefined;
    const [added, taken] =
      commit?.stands === true && final !== undefined ? [amountsOf(final), amountsOf(commit.first)] : [{}, {}];
    this.#known = this.#known.map((bucket) => moved(bucket, added, taken, this.#held, {}));
    // What is pending is this charge alone.
    if (commit?.call === "open" && final !== undefined) {
      commit.call = "needless";
      this.#pending = undefined;
    }
    const settle = (fresh: boolean) =>
      commit === undefined
        ? this.#release()
        : final === undefined
          ? this.#keepFirst(commit)
          : this.#replace(commit, final, settlement, fresh);
    try {
      this.#known = merged(this.#request.limits, await this.#after(() => settle(true)), this.#known);
      backend.released(this.#parts);
    } catch {
      if (commit === undefined) backend.released(this.#parts);
      else backend.settleLater({ request: this.#request, settlement, parts: this.#parts, settle });
    }
    return this.#known;
  }

  /** Releases what is held: the first charge stands. Rejects if that fails. */
  async keepFirst(): Promise<void> {
    const commit = this.#commit;
    if (commit === undefined || this.#settled) return;
    this.#settled = true;
    await this.#after(() => this.#keepFirst(commit));
  }

  /** Runs work at once, or after what is on its way. */
  #after<T>(work: () => Promise<T>): Promise<T> {
    return this.#pending === undefined ? work() : this.#pending.then(work);
  }

  /** The user's part decides the time, and the group's follows: a node that dies in between leaves that to be found. */
  async #makeCharge(commit: Commit): Promise<readonly BucketState[]> {
    const { calls, replicas, strict } = this.#backend;
    const buckets: (readonly BucketState[])[] = [];
    const isNeeded = (): boolean => {
      if (commit.call === "needless") return false;
      commit.call = "sent";
      return true;
    };
    for (const part of this.#parts) {
      const isFirst = part === this.#parts[0];
      const options = strict ? { replicas } : isFirst && commit.call === "open" ? { isNeeded } : {};
      buckets.push(await calls.commit(part, isFirst ? commit : this.#ofGroup(commit), options));
    }
    return merged(this.#request.limits, buckets, this.#known);
  }

  #release(): Promise<readonly (readonly BucketState[] | undefined)[]> {
    return Promise.all(this.#parts.map((part) => this.#backend.calls.settle(part, null)));
  }

  /** Where the final charge makes no sense the first one stands, and nothing more is held. */
  async #keepFirst(commit: Commit): Promise<readonly (readonly BucketState[] | undefined)[]> {
    if (commit.stands && this.#parts.some(({ chargedAt }) => chargedAt === undefined)) {
      await this.#makeCharge(commit).catch((error: unknown) => {
        // It was made by an earlier run, and released afterwards.
        if (!(error instanceof HoldEndedError)) throw error;
      });
    }
    return this.#release();
  }

  async #replace(commit: Commit, final: Charge, settlement: Settlement, fresh: boolean) {
    const { usage, outcome, estimated, price, provider } = settlement;
    const body = this.#recordOf({ first: commit.first, final, usage, outcome, estimated, price, provider });
    const first = commit.stands ? { ...commit, ago: this.#backend.monotonic() - commit.startedAt } : undefined;
    const [user, group] = this.#parts;
    const { calls } = this.#backend;
    if (user === undefined) return [];
    const charge: FinalCharge = { final, body, first, shared: group !== undefined, fresh };
    const userSettled = await calls.settle(user, charge);
    if (group === undefined) return [userSettled];
    // Only now: a copy of all accounts lets the group's part end what the user's has begun, and takes its record for both.
    const share = first === undefined ? undefined : { ...first, ...this.#ofGroup(commit) };
    return [userSettled, await calls.settle(group, { ...charge, body: "", first: share, shared: false })];
  }

  /** The group's part of a first charge: its record is the user's. */
  #ofGroup({ first }: FirstCharge): FirstCharge {
    return { first, body: "", at: this.#parts[0]?.chargedAt };
  }

  /** A record of this request as JSON, but for its beginning `{"at":…,`. */
  #recordOf(rest: object): string {
    const { user, requestId, model, apiKey, group } = this.#request;
    return JSON.stringify({ id: this.#parts[0]?.id, user, requestId, model, apiKey, group, ...rest }).slice(1);
  }
}

/** The buckets of a request in the order of its limits. Those of a part that are not known are taken from `before`. */
export function merged(
  limits: readonly QuotaLimit[],
  parts: readonly (readonly BucketState[] | undefined)[],
  before: readonly BucketState[],
): readonly BucketState[] {
  const next = parts.map(() => 0);
  return limits.flatMap((limit, index) => {
    const part = limit.group === undefined ? 0 : 1;
    const place = next[part] ?? 0;
    next[part] = place + 1;
    return parts[part]?.[place] ?? before[index] ?? [];
  });
}

function valueOf<T>(result: PromiseSettledResult<T> | undefined): T | undefined {
  return result?.status === "fulfilled" ? result.value : undefined;
}

/** A promise, and the same one without its error: it is reported where the first is awaited, or at settle. */
function tracked<T>(promise: Promise<T>): { readonly promise: Promise<T>; readonly ended: Promise<unknown> } {
  return { promise, ended: promise.catch(() => undefined) };
}

/** A charge as what is held for it. */
export function amountsOf(charge: Charge): HeldAmounts {
  const amounts: Record<string, number> = {};
  for (const metric of countMetrics) amounts[metric] = charge[metric];
  amounts[`cost:${charge.currency}`] = charge.cost;
  return amounts;
}

/** What is held, and a charge beside it. */
export function sumOf(held: HeldAmounts, extra: Charge): HeldAmounts {
  const sums: Record<string, number> = { ...held };
  for (const [name, amount] of Object.entries(amountsOf(extra))) sums[name] = addAmounts(sums[name] ?? 0, amount);
  return sums;
}

/** The rest of a reservation once a part of it was charged. */
function restOf(held: HeldAmounts, taken: HeldAmounts): HeldAmounts {
  const rest: Record<string, number> = {};
  for (const name in held) rest[name] = Math.max(0, (held[name] ?? 0) - (taken[name] ?? 0));
  return rest;
}

/** A bucket after more was used, and a reservation has changed from `before` to `after`. */
function moved(
  { limit, used, reserved, resetAt }: BucketState,
  added: HeldAmounts,
  taken: HeldAmounts,
  before: HeldAmounts,
  after: HeldAmounts,
): BucketState {
  const name = limitName(limit);
  const of = (amounts: HeldAmounts): number => amounts[name] ?? 0;
  return bucketOf(
    limit,
    Math.max(0, addAmounts(used, of(added) - of(taken))),
    addAmounts(Math.max(0, reserved - of(before)), of(after)),
    resetAt,
  );
}
