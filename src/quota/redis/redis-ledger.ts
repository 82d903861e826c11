import { setTimeout as sleep } from "node:timers/promises";
import type { Config } from "../../config/schema.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { replyNumber, replyText, type Redis, RedisUnavailableError } from "../../lib/redis/redis.ts";
import { accountName, groupAccount, userName } from "../accounts.ts";
import { isCharge, partOf } from "../amounts.ts";
import type { BucketState, Hold, Ledger, ReserveRequest } from "../ledger.ts";
import { createPeriods } from "../periods.ts";
import { quotaExceeded } from "../quota-exceeded.ts";
import { accountOf, bucketsIn, chargeText, createAccountCalls } from "./account-calls.ts";
import { createHoldCalls, type HoldPart, type Refusal } from "./hold-calls.ts";
import { createHoldLeases } from "./hold-leases.ts";
import { createLateSettles } from "./late-settles.ts";
import type { LedgerReplica } from "./ledger-replica.ts";
import { type Allowance, type AllowanceOptions, openAllowance, rememberReportedMs } from "./allowance.ts";
import { amountsOf, type HoldBackend, merged, RedisHold } from "./redis-hold.ts";

export interface RedisLedgerOptions {
  readonly redis: Redis;
  readonly replica: LedgerReplica;
  readonly quota: Pick<Config["quota"], "timezone" | "monthly_reset_day">;
  readonly state: Pick<Config["state"], "lease_seconds" | "min_replicas">;
  readonly storage: Pick<Config["storage"], "durability">;
  readonly clock: Clock;
  readonly log: Log;
  /** Ids that no other node and no earlier run has. */
  readonly newId: () => string;
  /** How requests are served while Redis is away; default: not at all. */
  readonly allowance?: Pick<AllowanceOptions, "share" | "allowanceMs" | "folder" | "syncIntervalMs"> | undefined;
}

/** A ledger that any number of nodes share. Redis decides; the replica answers what was used when. */
export interface RedisLedger extends Ledger {
  /** Renews and reaps leases now; otherwise a timer does. */
  readonly leases: { renew(): Promise<void>; reap(): Promise<void> };
  /** For metrics: reservations of this node, and final charges that Redis has not accepted yet. */
  stats(): { readonly held: number; readonly late: number };
  /** Undefined if requests are refused while Redis is away. */
  readonly allowance: Allowance | undefined;
}

/**
 * A reservation that was refused is tried again after these times, in ms, while the room is held by a request whose
 * other account may yet refuse it: that is known in a moment, unless its node has died.
 */
const unsurePauses = [2, 5, 10, 20, 40, 80, 160, 320, 320] as const;

/** Rejects where the charges of an earlier run that Redis does not have cannot be read. */
export async function openRedisLedger(options: RedisLedgerOptions): Promise<RedisLedger> {
  const { redis, replica, quota, state, storage, clock, log } = options;
  const periodAt = createPeriods({ timezone: quota.timezone, monthlyResetDay: quota.monthly_reset_day });
  const accounts = createAccountCalls(redis, replica, periodAt, () => clock.now());
  const leaseMs = state.lease_seconds * 1000;
  const calls = createHoldCalls(redis, accounts, leaseMs);
  const leases = createHoldLeases({ redis, accounts, calls, replica, leaseMs, log });
  replica.beforeOpening((tag) => leases.holdAgain(tag));
  const late = createLateSettles({
    monotonic: () => clock.monotonic(),
    log,
    onEnd: (parts) => {
      leases.remove(parts);
    },
  });
  const strict = storage.durability === "strict";
  const replicas = strict ? state.min_replicas : 0;
  const backend: HoldBackend = {
    calls,
    strict,
    replicas,
    monotonic: () => clock.monotonic(),
    released: (parts) => {
      leases.remove(parts);
    },
    settleLater: (settlement) => {
      late.keep(settlement);
    },
    unusable({ user, requestId }, { outcome, charge }) {
      log.error({ user, requestId, outcome, charge }, "a final charge is not of amounts; the first one stands");
    },
  };
  const node = options.newId();
  let ids = 0;
  const nextId = (): string => `${node}.${(ids++).toString(36)}`;

  /** The user's part of a request, and the group's. */
  function partsOf(
    id: string,
    { user, group, apiKey, limits }: Pick<ReserveRequest, "user" | "group" | "apiKey" | "limits">,
  ): readonly HoldPart[] {
    const own = limits.filter((limit) => limit.group === undefined);
    const parts = [calls.part(id, accounts.view(user, apiKey, own), user)];
    if (group !== undefined) {
      const shared = limits.filter((limit) => limit.group !== undefined);
      parts.push(calls.part(id, accounts.view(groupAccount(group), undefined, shared), user));
    }
    return parts;
  }

  async function tryReserve(request: ReserveRequest): Promise<Hold | Refusal> {
    const parts = partsOf(nextId(), request);
    const granted = await calls.reserve(parts, request.limits, amountsOf(request.upperBound));
    if ("bucket" in granted) return granted;
    const hold = new RedisHold(backend, request, parts, merged(request.limits, granted, []));
    leases.add(parts, hold);
    return hold;
  }

  const allowance =
    options.allowance === undefined
      ? undefined
      : await openAllowance({
          ...options.allowance,
          redis,
          calls,
          partsOf,
          newId: nextId,
          leaseMs,
          clock,
          log,
          reportCalls: createHoldCalls(redis, accounts, leaseMs, rememberReportedMs),
        });

  /** As Ledger.reserve, while Redis answers. */
  async function reserve(request: ReserveRequest): Promise<Hold> {
    for (let tries = 0; ; tries++) {
      const result = await tryReserve(request);
      if (!("unsure" in result)) {
        allowance?.served(request, result.buckets);
        return result;
      }
      if ((await allowance?.giveBack(request)) === true) continue;
      const pause = result.unsure ? unsurePauses[tries] : undefined;
      if (pause === undefined) throw quotaExceeded({ ...result.bucket, limit: result.limit }, request.upperBound);
      await sleep(pause);
    }
  }

  /** Makes a change by hand, once. */
  async function change(
    account: string,
    [per, added, taken]: readonly [per: string, added: string, taken: string],
    kind: "adjust" | "reset",
    body: object,
  ): Promise<void> {
    checkAccount(account);
    const view = accounts.view(account, undefined, []);
    const id = nextId();
    const mark = redis.keyIn(view.tag, "hold", id);
    const text = JSON.stringify({ id, user: account, ...body }).slice(1);
    const { values } = await accounts.call("ledger_change", view, [mark], [per, added, taken, text, markMs], {
      replicas,
    });
    const [seq, writtenAt, at] = values;
    accounts.note(view.tag, {
      seq: replyText(seq),
      writtenAt: replyNumber(writtenAt),
      kind,
      body: `{"at":${replyText(at)},${text}`,
    });
  }

  return {
    async reserve(request) {
      if (!isCharge(request.upperBound)) throw new RangeError("a charge must be of safe integers >= 0");
      if (!userName.test(request.user)) throw notName(request.user);
      if (request.group !== undefined) checkAccount(groupAccount(request.group));
      for (const limit of request.limits) {
        if (limit.group !== undefined && limit.group !== request.group)
          throw new RangeError("a limit of another group");
        if (limit.apiKey !== undefined && limit.apiKey !== request.apiKey)
          throw new RangeError("a limit of another API key");
      }
      if (allowance?.isServing() === true) return allowance.reserve(request);
      try {
        return await reserve(request);
      } catch (error) {
        // Only now is it known that Redis is away.
        if (!(error instanceof RedisUnavailableError) || allowance?.isServing() !== true) throw error;
        return allowance.reserve(request);
      }
    },
    async buckets(user, limits) {
      checkAccount(user);
      // One call for each account, and for each API key of one.
      const byCounts = new Map<string, { account: string; apiKey: string | undefined; places: number[] }>();
      for (const [place, limit] of limits.entries()) {
        const account = accountOf(limit, user);
        checkAccount(account);
        const name = JSON.stringify([account, limit.apiKey]);
        const counts = byCounts.get(name) ?? { account, apiKey: limit.apiKey, places: [] };
        counts.places.push(place);
        byCounts.set(name, counts);
      }
      const all: BucketState[] = [];
      await Promise.all(
        [...byCounts.values()].map(async ({ account, apiKey, places }) => {
          const some = places.flatMap((place) => limits[place] ?? []);
          const view = accounts.view(account, apiKey, some);
          const { values } = await accounts.call("ledger_buckets", view, [], []);
          for (const [index, bucket] of bucketsIn(values, 0, some).entries()) all[places[index] ?? 0] = bucket;
        }),
      );
      return all;
    },
    async adjust(account, delta, note) {
      const [added, taken] = [partOf(delta, 1), partOf(delta, -1)];
      await change(account, ["", chargeText(added), chargeText(taken)], "adjust", { added, taken, ...note });
    },
    reset: (account, per, note) => change(account, [per, "", ""], "reset", { per, ...note }),
    usage: (query) => replica.usage(query),
    usageOfAll: (span) => replica.usageOfAll(span),
    recorded: (after) => replica.recorded(after),
    missingBefore: () => replica.missingBefore(),
    problems: () => replica.problems(),
    health() {
      const reason = replica.refusal();
      if (reason !== undefined) return { ok: false, reason };
      return redis.status().connected || allowance?.isServing() === true
        ? { ok: true }
        : { ok: false, reason: "Redis does not answer" };
    },
    leases,
    allowance,
    stats: () => ({ held: leases.count(), late: late.count() }),
    async close() {
      leases.stop();
      await allowance?.close();
      await late.close();
    },
  };
}

/** A change by hand is remembered for so long, in ms, so that a repeated call doesn't make it twice. */
const markMs = 300_000;

/** Throws RangeError. */
function checkAccount(name: string): void {
  if (!accountName.test(name)) throw notName(name);
}

function notName(name: string): RangeError {
  return new RangeError(`${JSON.stringify(name)} is no user name`);
}
