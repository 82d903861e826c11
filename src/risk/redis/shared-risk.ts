import { randomBytes } from "node:crypto";
import type { ChatFinished } from "../../events/catalogue.ts";
import type { Log } from "../../lib/log.ts";
import type { Redis } from "../../lib/redis/redis.ts";
import { createKnownUsers, fromRecord, type Known, stepOf, toRecord } from "../known-users.ts";
import { createRiskViews, type Risk, type RiskOptions } from "../risk.ts";
import { neutralTrust } from "../trust.ts";
import { createTrustRules, type TrustAccount, type TrustChanged } from "../trust-rules.ts";
import { createTrustStore, type StoredTrust } from "./trust-store.ts";

export interface SharedRiskOptions extends RiskOptions {
  readonly redis: Redis;
  readonly log: Log;
  /** How often what was noted goes to Redis, and moves made elsewhere are read, in ms. Default: 1 s. */
  readonly syncMs?: number;
}

/** Trust steps that all processes share. */
export interface SharedRisk extends Risk {
  /** Takes what was noted to Redis, and reads what has moved. Otherwise a timer does. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** A request, or a refresh token that was used twice. */
type Noted =
  ChatFinished | (Pick<TrustChanged, "at" | "traceId" | "ip" | "user"> & { readonly type: "stolen_session" });

/** What this process has noted of a user, and Redis does not have. */
interface Pending {
  readonly account: TrustAccount;
  readonly createdAt: number;
  readonly noted: Noted[];
  /** A pin that differs from what Redis has, and when that was seen first and last, in monotonic ms. */
  pin: { readonly to: string | null; readonly first: number; last: number } | undefined;
  /** A change whose answer was lost: it is made once more before anything else. */
  attempt: Attempt | undefined;
}

interface Attempt {
  readonly id: string;
  readonly read: string;
  readonly text: string;
  readonly entry: Known;
  readonly isNewStep: boolean;
  readonly moves: readonly TrustChanged[];
  /** How many of the events it has taken note of. */
  readonly count: number;
}

/** Events that wait for Redis, at most; more are not noted. */
const maxNoted = 20_000;
/** Users whose changes are on their way at once. */
const batch = 100;
/** How often a change is tried again because another process was faster. */
const maxTries = 20;
/** An account may have been read this long ago, in ms: a pin that is seen for longer is one. */
const pinSettlesMs = 1500;
/** Clocks of processes may differ by so much, in ms: what is noted later counts as later. */
const maxSkewMs = 60_000;

/**
 * Each process notes what it sees, and adds it every second to what Redis has of the user: a compare-and-set, so that
 * nothing is lost, and each move is made and reported once, by the process whose change leads to it. The others read it
 * within a second.
 */
export async function openSharedRisk(options: SharedRiskOptions): Promise<SharedRisk> {
  const { redis, log, emit, clock, saved, syncMs = 1000 } = options;
  const rules = createTrustRules(options.config, options.ownRules);
  const known = createKnownUsers(saved ?? new Map());
  const store = createTrustStore(redis);
  /** Of the records that are known. */
  const numbers = new Map<string, string>();
  const versions = new Map(redis.tags.map((tag) => [tag, { life: "", version: 0 }]));
  let pending = new Map<string, Pending>();
  let waiting = 0;
  let dropped = 0;
  let changed = false;
  let syncing: Promise<void> | undefined;
  let lastError = "";

  function pendingOf(account: TrustAccount, createdAt: number): Pending {
    let one = pending.get(account.username);
    if (one === undefined || one.createdAt < createdAt) {
      // What was noted of an earlier account of that name counts no more.
      waiting -= one?.noted.length ?? 0;
      one = { account, createdAt, noted: [], pin: one?.pin, attempt: undefined };
      pending.set(account.username, one);
    }
    return one;
  }

  function keep(user: string, entry: Known, number: string): void {
    entry.lookAt = known.get(user)?.lookAt ?? entry.lookAt;
    known.keep(user, entry);
    numbers.set(user, number);
    changed = true;
    // Those that were forgotten since.
    if (numbers.size > 20_000)
      for (const name of numbers.keys()) if (known.get(name) === undefined) numbers.delete(name);
  }

  function learn(user: string, { number, record }: StoredTrust): void {
    if (record !== undefined && numbers.get(user) !== number) keep(user, fromRecord(record), number);
  }

  /** What a user's record becomes by what was noted, and the moves that this leads to. */
  function apply(base: Known, { account, createdAt, noted, pin }: Pending) {
    const entry =
      base.createdAt < createdAt ? rules.begin(account, clock.now()) : fromRecord(structuredClone(toRecord(base)));
    entry.lookAt = base.lookAt;
    const moves: TrustChanged[] = [];
    const add = (move: TrustChanged | undefined): void => {
      if (move !== undefined) moves.push(move);
    };
    // Of an account whose name another one has by now.
    if (entry.createdAt > createdAt) return { entry, moves };
    if (pin !== undefined && pin.to !== entry.pin) add(rules.notePin(account.username, entry, pin.to, clock.now()));
    for (const one of noted) {
      const { lastAt } = entry.behaviour;
      const event = one.at < lastAt && lastAt - one.at < maxSkewMs ? { ...one, at: lastAt } : one;
      add(
        event.type === "chat.finished"
          ? rules.noteRequest(entry, event)
          : rules.noteStolenSession(event.user, entry, event),
      );
    }
    return { entry, moves };
  }

  async function attemptOf(
    user: string,
    one: Pending,
    base: Known | undefined,
    read: string,
  ): Promise<StoredTrust | null> {
    const from = base ?? rules.begin(one.account, clock.now());
    const { entry, moves } = apply(from, one);
    const isNewStep = base === undefined || stepOf(entry) !== stepOf(from) || entry.createdAt !== from.createdAt;
    one.attempt = {
      id: newId(),
      read,
      text: JSON.stringify(toRecord(entry)),
      entry,
      isNewStep,
      moves,
      count: one.noted.length,
    };
    return make(user, one, one.attempt);
  }

  /** What Redis has, where it is not what was read; null if the change was made. */
  async function make(user: string, one: Pending, attempt: Attempt): Promise<StoredTrust | null> {
    const { id, read, text, entry, isNewStep, moves } = attempt;
    const result = await store.put(user, read, text, { id, at: entry.behaviour.lastAt, isNewStep });
    one.attempt = undefined;
    if (typeof result !== "string") return result;
    one.noted.splice(0, attempt.count);
    waiting -= attempt.count;
    known.keep(user, entry);
    numbers.set(user, result);
    changed = true;
    for (const move of moves) emit(move);
    return null;
  }

  async function push(user: string, one: Pending): Promise<void> {
    let found: StoredTrust | null = null;
    if (one.attempt !== undefined) {
      found = await make(user, one, one.attempt);
      if (found === null && one.noted.length === 0) return;
    }
    const own = known.get(user);
    found ??= await attemptOf(user, one, own, numbers.get(user) ?? "0");
    for (let tries = 0; found !== null && tries < maxTries; tries++) {
      const { number, record } = found;
      // Where Redis has lost it, this process still knows what it was.
      const base = record === undefined ? own : fromRecord(record);
      if (base !== undefined && own !== undefined) base.lookAt = own.lookAt;
      found = await attemptOf(user, one, base, number);
    }
    if (found !== null) throw new Error(`the trust of ${user} is changed by too many at once`);
  }

  /** Takes what was noted to Redis. What fails is kept for the next time. */
  async function pushAll(): Promise<void> {
    const due = pending;
    pending = new Map();
    const left = [...due];
    while (left.length > 0) {
      const some = left.splice(0, batch);
      const results = await Promise.allSettled(some.map(([user, one]) => pushSettled(user, one)));
      const failed = results.find((result) => result.status === "rejected");
      if (failed === undefined) continue;
      for (const [user, one] of [...some.filter((_, at) => results[at]?.status === "rejected"), ...left])
        putBack(user, one);
      throw failed.reason;
    }
  }

  /** Leaves out a pin that may only be that of an account that was read before its last change. */
  async function pushSettled(user: string, one: Pending): Promise<void> {
    const { account, createdAt, pin, noted, attempt } = one;
    if (pin !== undefined && pin.last - pin.first < pinSettlesMs) {
      one.pin = undefined;
      putBack(user, { account, createdAt, pin, noted: [], attempt: undefined });
      if (noted.length === 0 && attempt === undefined) return;
    }
    await push(user, one);
  }

  function putBack(user: string, one: Pending): void {
    const newer = pending.get(user);
    pending.set(user, one);
    if (newer === undefined) return;
    one.noted.push(...newer.noted);
    one.pin = newer.pin ?? one.pin;
  }

  /** Reads whose steps have changed elsewhere. Where Redis has lost them, it gets back what is known here. */
  async function follow(tag: string): Promise<void> {
    const last = versions.get(tag) ?? { life: "", version: 0 };
    const { life, version, changed: users } = await store.since(tag, last.version);
    if (last.life !== "" && life !== last.life) {
      versions.set(tag, { life: "", version: 0 });
      await seed(tag);
      return;
    }
    for (const [user, stored] of users) learn(user, stored);
    versions.set(tag, { life, version });
  }

  /** Gives Redis the users of a tag that it does not have. */
  async function seed(tag: string): Promise<void> {
    const there = await store.all(tag);
    for (const [user, entry] of [...known.entries()]) {
      if (redis.tagOf(user) !== tag || there.has(user)) continue;
      const text = JSON.stringify(toRecord(entry));
      const result = await store.put(user, "0", text, { id: newId(), at: entry.behaviour.lastAt, isNewStep: true });
      if (typeof result === "string") numbers.set(user, result);
      else learn(user, result);
    }
    for (const [user, stored] of there) learn(user, stored);
  }

  async function syncNow(): Promise<void> {
    if (!rules.enabled()) return;
    try {
      await pushAll();
      await Promise.all(redis.tags.map(follow));
      lastError = "";
    } finally {
      if (dropped > 0) log.warn({ event: "trust", dropped }, "requests were not noted for trust steps: Redis is away");
      dropped = 0;
    }
  }

  function sync(): Promise<void> {
    const before = syncing ?? Promise.resolve();
    const running = before.catch(() => undefined).then(syncNow);
    syncing = running;
    return running.finally(() => {
      if (syncing === running) syncing = undefined;
    });
  }

  async function syncQuietly(): Promise<void> {
    await sync().catch((error: unknown) => {
      const text = error instanceof Error ? error.message : String(error);
      if (text !== lastError) log.warn({ err: error }, "trust steps are not shared at the moment; trying again");
      lastError = text;
    });
  }

  const timer = setInterval(() => {
    if (syncing === undefined) void syncQuietly();
  }, syncMs).unref();
  if (rules.enabled()) {
    await syncQuietly();
    await Promise.all(redis.tags.map(seed)).catch((error: unknown) => {
      log.warn({ err: error }, "the trust steps of this folder could not be given to Redis");
    });
  }

  const views = createRiskViews({ rules, known, clock });
  return {
    ...views,
    view(account) {
      const view = views.view(account);
      const pin = rules.pinOf(account);
      if (!rules.enabled() || pin === known.get(account.username)?.pin) return view;
      const step = pin ?? known.get(account.username)?.step;
      return { ...view, pinned: pin !== null, ...(step === undefined ? {} : { trust: rules.trustAt(step) }) };
    },
    trustOf(account) {
      if (!rules.enabled()) return neutralTrust;
      const createdAt = account.created_at?.getTime() ?? 0;
      let entry = known.get(account.username);
      if (entry === undefined || entry.createdAt < createdAt) {
        entry = rules.begin(account, clock.now());
        known.keep(account.username, entry);
        numbers.delete(account.username);
        pendingOf(account, createdAt);
      }
      const pin = rules.pinOf(account);
      if (pin !== entry.pin) {
        const now = clock.monotonic();
        const one = pendingOf(account, createdAt);
        if (one.pin?.to === pin) one.pin.last = now;
        else one.pin = { to: pin, first: now, last: now };
      }
      return rules.trustAt(pin ?? entry.step);
    },
    sink(event) {
      if (!rules.enabled()) return;
      if (event.type !== "chat.finished" && event.type !== "session.reuse_detected") return;
      const entry = known.get(event.user);
      if (entry === undefined) return;
      if (waiting >= maxNoted) {
        dropped++;
        return;
      }
      waiting++;
      const account = { username: event.user, created_at: new Date(entry.createdAt) };
      const { at, traceId, ip, user } = event;
      const noted: Noted = event.type === "chat.finished" ? event : { type: "stolen_session", at, traceId, ip, user };
      pendingOf(account, entry.createdAt).noted.push(noted);
    },
    async notePin(account) {
      const createdAt = account.created_at?.getTime() ?? 0;
      pendingOf(account, createdAt).pin = { to: rules.pinOf(account), first: -Infinity, last: clock.monotonic() };
      await syncQuietly();
    },
    async refresh(user) {
      await sync();
      if (user !== undefined) learn(user, await store.get(user));
      else {
        const all = await Promise.all(redis.tags.map((tag) => store.all(tag)));
        for (const users of all) for (const [name, stored] of users) learn(name, stored);
      }
    },
    takeChanged() {
      const was = changed;
      changed = false;
      return was;
    },
    sync,
    async close() {
      clearInterval(timer);
      await syncQuietly();
    },
  };
}

function newId(): string {
  return randomBytes(9).toString("base64url");
}
