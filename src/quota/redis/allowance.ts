import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { type Redis, RedisUnavailableError } from "../../lib/redis/redis.ts";
import { noCharge } from "../amounts.ts";
import type { BucketState, Hold, ReserveRequest } from "../ledger.ts";
import { type AwayCharges, AwayHold } from "./away-hold.ts";
import { type AwayCharge, openAwayJournal } from "./away-journal.ts";
import type { HoldCalls, HoldPart } from "./hold-calls.ts";
import { type HoldBackend, RedisHold } from "./redis-hold.ts";
import { createSlices, type Slice } from "./slices.ts";

/** Serves requests while Redis is away, from what this process holds in advance, and reports their charges afterwards. */
export interface Allowance {
  /** Whether requests are served from it now: Redis is away, and not for too long. */
  isServing(): boolean;
  /** Reserves from what this process holds in advance. Throws RedisUnavailableError if that is not enough. */
  reserve(request: ReserveRequest): Hold;
  /** A request was admitted by Redis. */
  served(request: ReserveRequest, buckets: readonly BucketState[]): void;
  /** Returns the slice of a user for whom Redis has no room left; false if there was none. */
  giveBack(request: ReserveRequest): Promise<boolean>;
  /** Reports to Redis what it does not have yet; otherwise a timer does. Rejects if some of that fails. */
  report(): Promise<void>;
  stats(): AllowanceStats;
  close(): Promise<void>;
}

/** For metrics. */
export interface AllowanceStats {
  /** Requests admitted without Redis, since the start. */
  readonly served: number;
  /** Charges that Redis does not have yet. */
  readonly unreported: number;
  /** Users for whom something is held. */
  readonly held: number;
}

export interface AllowanceOptions {
  readonly redis: Redis;
  /** Those of requests. */
  readonly calls: HoldCalls;
  /** As HoldCalls, but settled holds are remembered for longer: see `rememberMs`. */
  readonly reportCalls: HoldCalls;
  readonly partsOf: (
    id: string,
    request: Pick<ReserveRequest, "user" | "group" | "apiKey" | "limits">,
  ) => readonly HoldPart[];
  readonly newId: () => string;
  readonly share: number;
  /** How long requests are served without Redis, in ms. */
  readonly allowanceMs: number;
  readonly leaseMs: number;
  /** Where charges are kept until Redis has them. */
  readonly folder: string;
  readonly syncIntervalMs: number;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * A charge that was reported is known to Redis for so long, in ms, should its process have died before it heard of
 * that.
 */
export const rememberReportedMs = 7 * 86_400_000;
/** Some hundred bytes each. */
const maxUnreported = 20_000;
/** Reported at once. */
const batch = 50;
const reportEveryMs = 500;
/** Redis keeps a slice for longer than it is spent: clocks may differ by this share. */
const clockShare = 1.1;

interface Unreported extends AwayCharge {
  /** Undefined for one of an earlier run: then its slice comes back by its lease. */
  readonly slice: Slice | undefined;
  isRunning: boolean;
}

/** Reads what an earlier run has left, and begins to report it. Throws JournalDamage if it cannot be read. */
export async function openAllowance(options: AllowanceOptions): Promise<Allowance> {
  const { redis, calls, partsOf, newId, share, allowanceMs, leaseMs, clock, log } = options;
  const monotonic = (): number => clock.monotonic();
  const journal = await openAwayJournal(options.folder, options.syncIntervalMs);
  const slices = createSlices({
    redis,
    calls,
    share,
    monotonic,
    log,
    partsOf: (subject) => partsOf(newId(), subject),
    spendMs: allowanceMs,
    keepMs: Math.ceil(clockShare * allowanceMs + leaseMs),
  });
  const unreported = new Map<string, Unreported>(
    journal.found.map((one) => [one.id, { ...one, slice: undefined, isRunning: false }]),
  );
  if (unreported.size > 0)
    log.warn({ event: "allowance", charges: unreported.size }, "reporting the charges of an earlier run to Redis");
  let served = 0;
  let servedBefore = 0;
  let wasAway = false;
  let reporting: Promise<void> | undefined;

  const charges: AwayCharges = {
    async charge(id, { request, slice }, charge, source) {
      const { user, requestId, model, apiKey, group: name } = request;
      const at = clock.now();
      const group = name === undefined ? undefined : { name, at };
      const { provider, price } = source ?? {};
      const record = { kind: "charge", at, user, requestId, model, charge, apiKey, group, provider, price } as const;
      await journal.add(id, record);
      unreported.set(id, { id, charge: record, settle: undefined, slice, isRunning: true });
    },
    async settle(id, settlement) {
      const one = unreported.get(id);
      if (one === undefined) return;
      if (settlement !== null) {
        const { charge, ...rest } = settlement;
        one.settle = {
          ...one.charge,
          kind: "settle",
          settledAt: clock.now(),
          first: one.charge.charge,
          final: charge,
          ...rest,
          provider: rest.provider ?? one.charge.provider,
        };
        await journal.add(id, one.settle).catch((error: unknown) => {
          log.error({ err: error, id }, "a final charge is in memory only until Redis has it");
        });
      }
      one.isRunning = false;
    },
  };

  function tellState(): void {
    const isAway = redis.awayMs() > 0;
    if (isAway === wasAway) return;
    wasAway = isAway;
    if (isAway) {
      servedBefore = served;
      const text = "Redis does not answer: requests are served from what this process holds in advance";
      log.warn({ event: "allowance", seconds: allowanceMs / 1000, held: slices.count() }, text);
    } else {
      const facts = { event: "allowance", served: served - servedBefore, charges: unreported.size };
      log.info(facts, "Redis answers again: reporting what was charged meanwhile");
    }
  }

  /** Makes a charge in Redis, once: it knows the id of one that it has. */
  async function reportOne(one: Unreported): Promise<void> {
    const { id, charge: made, settle } = one;
    const { user, requestId, model, apiKey, provider, price } = made;
    const subject = { user, requestId, model, apiKey, group: made.group?.name, limits: [] };
    const request: ReserveRequest = { ...subject, upperBound: noCharge(made.charge.currency) };
    const failure: { error?: Error } = {};
    const backend: HoldBackend = {
      calls: options.reportCalls,
      strict: false,
      replicas: 0,
      monotonic,
      released: () => undefined,
      settleLater: () => (failure.error = new RedisUnavailableError("a charge was not reported")),
      unusable: () => undefined,
    };
    const hold = new RedisHold(backend, request, partsOf(id, request), []);
    const source = provider === undefined || price === undefined ? undefined : { provider, price };
    await hold.commit(made.charge, source, Math.max(0, clock.now() - made.at));
    if (settle === undefined) await hold.keepFirst();
    else await hold.settle({ ...settle, charge: settle.final });
    if (failure.error !== undefined) throw failure.error;
    unreported.delete(id);
    if (one.slice !== undefined) one.slice.open--;
    try {
      journal.done(id);
    } catch (error) {
      log.error(
        { err: error, id },
        "that a charge was reported could not be noted: it is reported again after a restart",
      );
    }
  }

  async function reportAll(): Promise<void> {
    for (;;) {
      const some = [...unreported.values()].filter(({ isRunning }) => !isRunning).slice(0, batch);
      if (some.length === 0) break;
      // All of them, also where one fails: what is still on its way would be reported twice at once.
      const failed = (await Promise.allSettled(some.map(reportOne))).find(({ status }) => status === "rejected");
      if (failed?.status === "rejected") throw failed.reason;
      if (unreported.size === 0) await journal.clear();
    }
    await slices.beat();
  }

  function report(): Promise<void> {
    reporting ??= reportAll().finally(() => (reporting = undefined));
    return reporting;
  }

  const timer = setInterval(() => {
    tellState();
    if (wasAway || unreported.size === 0) return;
    report().catch((error: unknown) => {
      log.warn({ err: error, charges: unreported.size }, "charges cannot be reported to Redis yet; trying again");
    });
  }, reportEveryMs).unref();

  return {
    isServing() {
      const ms = redis.awayMs();
      return ms > 0 && ms < allowanceMs;
    },
    reserve(request) {
      tellState();
      const slice = slices.find(request);
      if (slice === undefined || unreported.size >= maxUnreported)
        throw new RedisUnavailableError(`Redis is away, and nothing is held in advance for ${request.user}`);
      const id = newId();
      const hold = new AwayHold(charges, request, slice, id);
      served++;
      return hold;
    },
    served(request, buckets) {
      slices.served(request, buckets);
    },
    giveBack: (request) => slices.giveBack(request),
    report,
    stats: () => ({ served, unreported: unreported.size, held: slices.count() }),
    async close() {
      clearInterval(timer);
      if (redis.awayMs() === 0 && unreported.size > 0) {
        const tried = report().catch((error: unknown) => {
          log.warn(
            { err: error, charges: unreported.size },
            "the remaining charges are reported to Redis at the next start",
          );
        });
        await Promise.race([tried, sleep(closeMs, undefined, { ref: false })]);
      }
      await slices.close();
      await journal.close();
    },
  };
}

/** How long a stop waits for what is to be reported, in ms. */
const closeMs = 5000;
