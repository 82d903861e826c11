import { createHash, randomBytes } from "node:crypto";
import { type Redis, replyList, replyNumber, replyText } from "../../lib/redis/redis.ts";
import type { RateLimiter, RateLimitRequest } from "../rate-limiter.ts";
import { putBackRate } from "../gcra.ts";
import type { RateRule } from "../rate-rules.ts";
import {
  identity,
  keyOf,
  ratedRule,
  refusalOf,
  type RuleSets,
  ruleSets,
  stateOf,
  statusOf,
  stepsOfTake,
  type Taking,
  unitsOf,
  worstOf,
} from "../rate-terms.ts";
import {
  type Ask,
  type Correction,
  isByProvider,
  type RateCalls,
  type RedisRule,
  RedisTicket,
  type TakeCall,
  type TakeReply,
} from "./redis-ticket.ts";

/** A rate limiter whose rules can be changed while it runs. */
export interface RedisRateLimiter extends RateLimiter {
  /** Uses other rules from now on. A rule that stays, by name and scopes, keeps its buckets, each as full as before. */
  configure(rules: readonly RateRule[]): void;
}

export interface RedisRateLimiterOptions {
  readonly redis: Redis;
  readonly rules: readonly RateRule[];
  /** How long a call may be repeated after its answer was lost, in ms. Default 30 s. */
  readonly repeatMs?: number;
}

const hourMs = 3_600_000;
/** Longest part of a bucket's name that a client chooses; what is longer is hashed. */
const longestName = 120;
/** Users who are asked for their own rules first, at most; see `crowded`. */
const maxCrowded = 10_000;

/**
 * The rate limiter over Redis, exact over all processes. Rules by user or by key have their buckets in the user's slot,
 * all others in one slot for all, so that a request makes two calls at the most, sent together: one round trip. Where
 * one of them refuses, what the other has taken is given back before the refusal is returned: nothing more is admitted
 * than one process would admit, and a refused request leaves nothing. For that moment others find less room than there
 * is; so that a user who is over a limit of the user's own cannot take from others that way, such a user is asked for
 * these first, one call after the other.
 *
 * What is told of a rule: its buckets are those of all processes, the refusals those of this one.
 */
export function createRedisRateLimiter(options: RedisRateLimiterOptions): RedisRateLimiter {
  const { redis, repeatMs = 30_000 } = options;
  const markMs = repeatMs + 5000;
  const sharedTag = redis.tagOf("rates");
  /** Ids of our own: one that a client could repeat would let it pass for free. */
  const process = randomBytes(9).toString("base64url");
  let calls = 0;
  let rules: readonly RedisRule[] = [];
  let sets: RuleSets<RedisRule> = ruleSets<RedisRule>([]);
  /** Users whose own rules have refused their last request here. */
  const crowded = new Set<string>();

  function configure(next: readonly RateRule[]): void {
    const refusedBefore = new Map(rules.map(({ id, refused }) => [id, refused]));
    const ids = new Set<string>();
    rules = next.map((rule) => {
      const base = identity(rule).replaceAll("\n", "/");
      let id = base;
      for (let nth = 2; ids.has(id); nth++) id = `${base}/${nth}`;
      ids.add(id);
      const isPersonal = !isByProvider(rule) && rule.by.some((scope) => scope === "user" || scope === "key");
      return { ...ratedRule(rule), id, isPersonal, refused: refusedBefore.get(id) ?? 0 };
    });
    sets = ruleSets(rules);
  }
  configure(options.rules);

  function tagOf({ of }: Pick<Ask, "of">, user: string): string {
    return of.isPersonal ? redis.tagOf(user) : sharedTag;
  }

  function bucketKey(tag: string, { of, key }: Pick<Ask, "of" | "key">, kind: "rate" | "rateback" = "rate"): string {
    const name = key.length <= longestName ? key : `#${createHash("sha256").update(key).digest("base64url")}`;
    return redis.keyIn(tag, kind, `${of.id}/${name}`);
  }

  function indexKey(tag: string, { id }: RedisRule): string {
    return redis.keyIn(tag, "rateindex", id);
  }

  function markKey(tag: string, id: string): string {
    return redis.keyIn(tag, "ratemark", id);
  }

  /** Adds the keys and figures of buckets to a call. */
  function add(tag: string, asks: readonly Ask[], keys: string[], args: (string | number)[]): void {
    for (const ask of asks) {
      const { room, speed } = ask.of.rate;
      keys.push(bucketKey(tag, ask), indexKey(tag, ask.of));
      args.push(room, speed, ask.steps);
    }
  }

  /** Adds the keys and figures of corrections to a call. */
  function addCorrections(
    tag: string,
    corrections: readonly Correction[],
    keys: string[],
    args: (string | number)[],
  ): void {
    for (const { taking, unused } of corrections) {
      const { of, rate, steps, at } = taking;
      keys.push(bucketKey(tag, taking), indexKey(tag, of), bucketKey(tag, taking, "rateback"));
      args.push(rate.room, rate.speed, putBackRate(rate).speed, unused, steps, at);
    }
  }

  function callOf({ tag, id, groups, returned }: TakeCall) {
    const keys: [string, ...string[]] = [markKey(tag, id)];
    const args: (string | number)[] = [markMs, returned.length, groups.length, ...groups.map(({ length }) => length)];
    for (const group of groups) add(tag, group, keys, args);
    const corrections = returned.map((taking) => ({ taking, unused: taking.steps }));
    addCorrections(tag, corrections, keys, args);
    return { keys, args };
  }

  async function take(call: TakeCall): Promise<TakeReply> {
    const { keys, args } = callOf(call);
    const [verdict, chosenText, atText, ...figures] = replyText(await redis.call("rates_take", keys, args)).split(" ");
    const chosen = Number(chosenText);
    const asks = chosen === 0 ? (call.groups[0] ?? []) : [...(call.groups[0] ?? []), ...(call.groups[chosen] ?? [])];
    const takings = asks.map(({ of, key, steps }, index): Taking<RedisRule> => {
      const [before, waitMs] = [Number(figures[2 * index]), Number(figures[2 * index + 1])];
      return { of, rate: of.rate, key, before, steps, waitMs, at: Number(atText) };
    });
    return { isTaken: verdict === "T", chosen, takings };
  }

  /** Whatever has become of a call: it has taken nothing in the end. What cannot be given back lapses with time. */
  async function cancel(call: TakeCall): Promise<void> {
    const { keys, args } = callOf(call);
    await redis.call("rates_cancel", keys, args).catch(() => undefined);
  }

  /** Makes all calls, or gives back what some have taken. */
  async function takeAll(planned: readonly TakeCall[], inTurn: boolean): Promise<readonly TakeReply[]> {
    const replies: TakeReply[] = [];
    if (inTurn) {
      const made: TakeCall[] = [];
      for (const call of planned) {
        made.push(call);
        const reply = await take(call).catch((error: unknown) => {
          for (const one of made) void cancel(one);
          throw error;
        });
        replies.push(reply);
        if (!reply.isTaken) break;
      }
    } else {
      const settled = await Promise.allSettled(planned.map(take));
      const failed = settled.find((one) => one.status === "rejected");
      if (failed !== undefined) {
        for (const one of planned) void cancel(one);
        throw failed.reason;
      }
      for (const one of settled) if (one.status === "fulfilled") replies.push(one.value);
    }
    if (replies.every(({ isTaken }) => isTaken)) return replies;
    await Promise.all(planned.filter((_, index) => replies[index]?.isTaken).map(cancel));
    return replies;
  }

  function asksOf(some: readonly RedisRule[], request: RateLimitRequest, provider: string): Ask[] {
    const asks: Ask[] = [];
    for (const of of some) {
      if (of.tiers !== null && !of.tiers.has(request.tier)) continue;
      const units = unitsOf(of, request, request.tokens, request.outputTokens);
      const key = units === 0 ? null : keyOf(of.rule.by, request, provider);
      if (key !== null) asks.push({ of, key, steps: stepsOfTake(of, request, units) });
    }
    return asks;
  }

  function rulesFor({ group }: RateLimitRequest, kind: "plain" | "byProvider"): readonly RedisRule[] {
    const ofGroup = group === null ? undefined : sets.forGroup.get(group);
    if (ofGroup === undefined || ofGroup[kind].length === 0) return sets.forAll[kind];
    return [...sets.forAll[kind], ...ofGroup[kind]];
  }

  const rateCalls: RateCalls = {
    take,
    async correct(tag, id, corrections) {
      const keys: [string, ...string[]] = [markKey(tag, id)];
      const args: (string | number)[] = [markMs];
      addCorrections(tag, corrections, keys, args);
      await redis.call("rates_correct", keys, args);
    },
    tagOf,
    asksOf,
  };

  return {
    configure,
    async take(request) {
      const { user, providers } = request;
      const asks = asksOf(rulesFor(request, "plain"), request, "");
      const byProvider = rulesFor(request, "byProvider");
      const choices = byProvider.length === 0 ? [] : providers.map((name) => asksOf(byProvider, request, name));
      const id = `${process}${(++calls).toString(36)}`;
      const own = asks.filter(({ of }) => of.isPersonal);
      const shared = asks.filter(({ of }) => !of.isPersonal);
      const planned: TakeCall[] = [];
      if (own.length > 0) planned.push({ tag: redis.tagOf(user), id: `${id}u`, groups: [own], returned: [] });
      if (shared.length > 0 || choices.some(({ length }) => length > 0))
        planned.push({ tag: sharedTag, id: `${id}s`, groups: [shared, ...choices], returned: [] });
      const replies = await takeAll(planned, crowded.has(user));
      const takings = replies.flatMap((reply) => reply.takings);
      const worst = worstOf(takings);
      if (own.length > 0) noteCrowd(user, replies[0]?.isTaken === false);
      if (worst !== null) return refusalOf(worst, takings, request);
      const chosen = byProvider.length === 0 ? 0 : Math.max(1, ...replies.map((reply) => reply.chosen));
      const provider = chosen === 0 ? null : (providers[chosen - 1] ?? null);
      return new RedisTicket(rateCalls, { request, id, takings, provider, byProvider });
    },
    async takeFreeDisconnect({ user, max }) {
      const key = redis.keyIn(redis.tagOf(user), "ratefree", user);
      const id = `${process}${(++calls).toString(36)}`;
      return replyNumber(await redis.call("rates_free", [key], [id, max, hourMs])) === 1;
    },
    async rules() {
      const counted = rules;
      const replies = await Promise.all(
        redis.tags.map(async (tag) => {
          const here = counted.filter(({ isPersonal }) => isPersonal || tag === sharedTag);
          const [first, ...others] = here.map((one) => indexKey(tag, one));
          if (first === undefined) return [];
          const counts = replyList(await redis.call("rates_count", [first, ...others], [])).map(replyNumber);
          return here.map((one, index) => [one, counts[index] ?? 0] as const);
        }),
      );
      const sums = new Map<RedisRule, number>();
      for (const [one, count] of replies.flat()) sums.set(one, (sums.get(one) ?? 0) + count);
      return counted.map((one) => statusOf(one, { buckets: sums.get(one) ?? 0, evicted: 0 }));
    },
    async statesOf(request) {
      const asks = asksOf(rulesFor(request, "plain"), request, "");
      const levels = new Map<Ask, number>();
      await Promise.all(
        [redis.tagOf(request.user), sharedTag].map(async (tag, index) => {
          const here = asks.filter(({ of }) => of.isPersonal === (index === 0));
          const [first, ...others] = here.map((ask) => bucketKey(tag, ask));
          if (first === undefined) return;
          const figures = here.flatMap(({ of: { rate } }) => [rate.room, rate.speed]);
          const replies = replyList(await redis.call("rates_look", [first, ...others], figures)).map(replyNumber);
          for (const [at, ask] of here.entries()) levels.set(ask, replies[at] ?? 0);
        }),
      );
      return asks.map((ask) => {
        const before = levels.get(ask) ?? 0;
        return stateOf({ of: ask.of, rate: ask.of.rate }, before, request);
      });
    },
  };

  function noteCrowd(user: string, isRefused: boolean): void {
    if (!isRefused) crowded.delete(user);
    else {
      if (crowded.size >= maxCrowded) crowded.clear();
      crowded.add(user);
    }
  }
}
