import type { Log } from "../../lib/log.ts";
import { type Redis, RedisUnavailableError, replyList } from "../../lib/redis/redis.ts";
import type { BucketState, QuotaLimit, ReserveRequest } from "../ledger.ts";
import { limitName } from "./account-calls.ts";
import type { HeldAmounts, HoldCalls, HoldPart } from "./hold-calls.ts";
import { createSliceClaims } from "./slice-claims.ts";

/**
 * A part of what a user's limits leave, which Redis holds for this process so that it can be spent while Redis is away.
 * There it is a reservation like that of a request: nobody else can spend it, and it comes back by its lease.
 */
export interface Slice {
  readonly subject: SliceSubject;
  readonly parts: readonly HoldPart[];
  readonly total: HeldAmounts;
  /** What may still be spent, by name; a name that is not here is not limited. */
  readonly left: Map<string, number>;
  /** The user's buckets when they were last heard of. */
  buckets: readonly BucketState[];
  /** Monotonic ms. Long before its lease in Redis ends. */
  spendUntil: number;
  /** Whether anything was spent of it. */
  isSpent: boolean;
  /** Requests that spend of it, and charges made from it that Redis does not have yet. */
  open: number;
}

/** For whose requests it is; the key only where it has limits of its own. */
type SliceSubject = Pick<ReserveRequest, "user" | "group" | "apiKey" | "limits">;

/** The slices of the users whom this process serves. */
export interface Slices {
  /** A request was admitted by Redis: its user is to have a slice. Nobody waits for that. */
  served(request: ReserveRequest, buckets: readonly BucketState[]): void;
  /** What may be spent for such a request now; undefined: nothing. */
  find(request: ReserveRequest): Slice | undefined;
  /** Returns the slice of a user for whom Redis has no room left; false if there was none. */
  giveBack(request: ReserveRequest): Promise<boolean>;
  /** Renews, resizes and gives back; otherwise a timer does. Rejects where Redis is away. */
  beat(): Promise<void>;
  count(): number;
  /** Gives everything back that is not in use. Where Redis can't be reached, the lease returns it. */
  close(): Promise<void>;
}

export interface SlicesOptions {
  readonly redis: Pick<Redis, "call" | "keyIn" | "awayMs">;
  readonly calls: Pick<HoldCalls, "reserve" | "settle">;
  /** The parts of a new reservation for the subject of a request. */
  readonly partsOf: (subject: SliceSubject) => readonly HoldPart[];
  /** Share of each limit that a process may have in advance. */
  readonly share: number;
  /** How long a slice may be spent after it was last renewed, in ms. */
  readonly spendMs: number;
  /** How long Redis keeps it, in ms: so much longer that clocks may run at different speeds, and charges be reported. */
  readonly keepMs: number;
  /** Monotonic ms. */
  readonly monotonic: () => number;
  readonly log: Log;
}

/** A user, with the key and the group of the requests. */
interface Lane {
  request: ReserveRequest;
  buckets: readonly BucketState[];
  usedAt: number;
  slice: Slice | undefined;
  isTaking: boolean;
  /** Before this time no slice is asked for. */
  notBefore: number;
}

/** Some hundred bytes each; users beyond it get nothing while Redis is away. */
const maxLanes = 20_000;
/** A process takes at most this part of what a limit has left: the last units are sold by Redis alone. */
const mostOfRest = 0.25;
/** Leases extended in one call. */
const batch = 500;

export function createSlices(options: SlicesOptions): Slices {
  const { redis, calls, partsOf, share, spendMs, keepMs, monotonic, log } = options;
  const lanes = new Map<string, Lane>();
  /** All that Redis holds, also those that are not spent from any more. */
  const held = new Set<Slice>();
  const claims = createSliceClaims(share);
  const beatMs = Math.min(10_000, spendMs / 6);
  let running: Promise<void> | undefined;
  let closed = false;
  const timer = setInterval(() => {
    // Redis is away: what is held can be spent for a while.
    beat().catch(() => undefined);
  }, beatMs).unref();

  /** What a process may have of the limits, given what is left of them. Nothing where a name is missing. */
  function wanted({ request, buckets, slice }: Lane): HeldAmounts {
    const amounts: Record<string, number> = {};
    const subject = subjectOf(request);
    for (const [index, limit] of request.limits.entries()) {
      const name = limitName(limit);
      const own = slice?.total[name] ?? 0;
      const rest = (buckets[index]?.remaining ?? 0) + own;
      const most = Math.floor(Math.min(claims.most(subject, limit, own), mostOfRest * rest));
      amounts[name] = Math.min(amounts[name] ?? most, most);
    }
    return amounts;
  }

  /** Takes a new slice, in the place of one that a lane has. One at a time: of two, one would be held and never spent. */
  async function take(lane: Lane): Promise<void> {
    const before = lane.slice;
    lane.slice = undefined;
    lane.isTaking = true;
    try {
      if (before !== undefined) await release(before);
      lane.slice = await newSlice(lane);
    } finally {
      lane.isTaking = false;
    }
    if (closed && lane.slice !== undefined) await release(lane.slice);
  }

  async function newSlice(lane: Lane): Promise<Slice | undefined> {
    const { request, buckets } = lane;
    const total = wanted(lane);
    const from = monotonic();
    lane.notBefore = from + beatMs;
    const isUnlimited = request.limits.length === 0;
    if (!isUnlimited && Object.values(total).every((amount) => amount === 0)) return undefined;
    const subject = subjectOf(request);
    const slice: Slice = {
      subject,
      parts: isUnlimited ? [] : partsOf(subject),
      total,
      left: new Map(Object.entries(total)),
      buckets,
      spendUntil: from + spendMs,
      isSpent: false,
      open: 0,
    };
    if (isUnlimited) return slice;
    claims.add(subject, total);
    try {
      const granted = await calls.reserve(slice.parts, request.limits, total, keepMs);
      if (!("bucket" in granted)) held.add(slice);
    } catch {
      // Where it was granted after all, its lease gives it back.
    } finally {
      if (!held.has(slice)) claims.remove(subject, total);
    }
    return held.has(slice) ? slice : undefined;
  }

  /** Nothing is spent of it any more. */
  function drop(slice: Slice): void {
    if (held.delete(slice)) claims.remove(slice.subject, slice.total);
    slice.spendUntil = -Infinity;
  }

  /** Gives a slice back. Where that fails, its lease does: it is renewed no more. */
  async function release(slice: Slice): Promise<void> {
    drop(slice);
    await Promise.allSettled(slice.parts.map((part) => calls.settle(part, null)));
  }

  async function renew(): Promise<void> {
    const from = monotonic();
    const byTag = new Map<string, { readonly slice: Slice; readonly member: string }[]>();
    for (const slice of held) {
      for (const { view, member } of slice.parts) {
        const some = byTag.get(view.tag);
        if (some === undefined) byTag.set(view.tag, [{ slice, member }]);
        else some.push({ slice, member });
      }
    }
    const lost = new Set<Slice>();
    const renewed = [...held];
    const extend = async (tag: string, some: readonly { readonly slice: Slice; readonly member: string }[]) => {
      const args = [keepMs, ...some.map(({ member }) => member)];
      const reply = replyList(await redis.call("ledger_extend", [redis.keyIn(tag, "leases")], args));
      for (const [index, { slice }] of some.entries()) if (reply[index] !== 1) lost.add(slice);
    };
    const extending: Promise<void>[] = [];
    for (const [tag, some] of byTag)
      for (let at = 0; at < some.length; at += batch) extending.push(extend(tag, some.slice(at, at + batch)));
    await Promise.all(extending);
    for (const slice of renewed) if (!lost.has(slice)) slice.spendUntil = from + spendMs;
    // Redis holds them no more: it was restored, or this process was away for longer than their leases.
    for (const slice of lost) drop(slice);
  }

  async function resize(lane: Lane, slice: Slice): Promise<void> {
    const amounts = wanted(lane);
    const differs = Object.entries(amounts).some(([name, amount]) => {
      const has = slice.total[name] ?? 0;
      return amount < has ? amount <= has / 2 : amount > has * 2;
    });
    if (differs) await take(lane);
  }

  async function beatNow(): Promise<void> {
    if (redis.awayMs() > 0) throw new RedisUnavailableError("Redis is away");
    await renew();
    const now = monotonic();
    const work: Promise<void>[] = [];
    for (const [key, lane] of lanes) {
      const { slice } = lane;
      const isOver = slice !== undefined && (slice.isSpent || slice.spendUntil <= now);
      if (isOver) lane.slice = undefined;
      if (now - lane.usedAt > spendMs && !lane.isTaking) {
        lanes.delete(key);
        claims.leave(subjectOf(lane.request));
        if (slice !== undefined && !isOver) work.push(release(slice));
      } else if (slice !== undefined && !isOver) work.push(resize(lane, slice));
    }
    // Everything that was spent of these is in Redis by now.
    for (const slice of held) if (slice.isSpent && slice.open === 0) work.push(release(slice));
    await Promise.all(work);
  }

  function beat(): Promise<void> {
    running ??= beatNow().finally(() => (running = undefined));
    return running;
  }

  return {
    served(request, buckets) {
      const key = laneKey(request);
      const now = monotonic();
      let lane = lanes.get(key);
      if (lane === undefined) {
        if (lanes.size >= maxLanes || closed) return;
        lane = { request, buckets, usedAt: now, slice: undefined, isTaking: false, notBefore: 0 };
        lanes.set(key, lane);
        claims.enter(subjectOf(request));
      }
      Object.assign(lane, { request, buckets, usedAt: now });
      const { slice } = lane;
      if (slice !== undefined) {
        slice.buckets = buckets;
        if (slice.parts.length === 0) slice.spendUntil = now + spendMs;
      } else if (!lane.isTaking && now >= lane.notBefore) {
        take(lane).catch((error: unknown) => {
          log.error({ err: error, user: request.user }, "no allowance could be taken in advance");
        });
      }
    },
    find(request) {
      const slice = lanes.get(laneKey(request))?.slice;
      if (slice === undefined || monotonic() >= slice.spendUntil) return undefined;
      return request.limits.every((limit) => slice.left.has(limitName(limit))) ? slice : undefined;
    },
    async giveBack(request) {
      const lane = lanes.get(laneKey(request));
      const slice = lane?.slice;
      if (lane === undefined || slice === undefined || slice.open > 0 || slice.parts.length === 0) return false;
      lane.slice = undefined;
      lane.notBefore = monotonic() + beatMs;
      await release(slice);
      return true;
    },
    beat,
    count: () => held.size,
    async close() {
      closed = true;
      clearInterval(timer);
      await running?.catch(() => undefined);
      if (redis.awayMs() === 0) await Promise.all([...held].filter(({ open }) => open === 0).map(release));
    },
  };
}

/** Takes amounts from a slice, all or none. What is not limited is not counted. */
export function spend(slice: Slice, amounts: HeldAmounts): boolean {
  const counted = Object.entries(amounts).filter(([name]) => slice.left.has(name));
  if (counted.some(([name, amount]) => amount > (slice.left.get(name) ?? 0))) return false;
  for (const [name, amount] of counted) slice.left.set(name, (slice.left.get(name) ?? 0) - amount);
  return true;
}

/** Gives amounts back to a slice; negative ones are taken, whether there is room or not. */
export function unspend(slice: Slice, amounts: HeldAmounts): void {
  for (const [name, amount] of Object.entries(amounts)) {
    const left = slice.left.get(name);
    if (left !== undefined) slice.left.set(name, left + amount);
  }
}

/** Requests of one lane have the same limits: their key matters only where it has some of its own. */
function laneKey({ user, group = "", apiKey = "", limits }: ReserveRequest): string {
  return `${user}\n${group}\n${limits.some(isOfKey) ? apiKey : ""}`;
}

/** The subject of a slice for such requests. */
function subjectOf({ user, group, apiKey, limits }: ReserveRequest): SliceSubject {
  return { user, group, limits, apiKey: limits.some(isOfKey) ? apiKey : undefined };
}

function isOfKey({ apiKey }: QuotaLimit): boolean {
  return apiKey !== undefined;
}
