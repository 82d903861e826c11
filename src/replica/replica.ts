import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { type Redis, RedisUnavailableError } from "../lib/redis/redis.ts";
import type { MemoryLedger } from "../quota/memory/memory-ledger.ts";
import type { LedgerReplica, LogRecord } from "../quota/redis/ledger-replica.ts";
import { copyAccounts, copyDocuments } from "./copy-state.ts";
import { createDocumentFolder } from "./document-folder.ts";
import { createEpochsFile, readKnownEpochs } from "./known-epochs.ts";
import { missingBefore, noteLack, readLacks, withLacks } from "./lacking-records.ts";
import { readLogPage, streamStart } from "./log-page.ts";
import { fenceAll, mendTag } from "./mend.ts";
import { ForeignStateError, openOwnState } from "./own-state.ts";
import { restoreTag } from "./restore-tag.ts";
import { createTagFollower, type TagFollower } from "./tag-follower.ts";

export interface ReplicaOptions {
  readonly redis: Redis;
  /** The users folder; its lock must be held. */
  readonly usersDir: string;
  /** The ledger of that folder. The replica doesn't close it. */
  readonly ledger: MemoryLedger;
  readonly clock: Clock;
  readonly log: Log;
  /** Default: a random one. */
  readonly node?: string;
  /** How often the logs are read, in ms. Default: 200. */
  readonly pollMs?: number;
  /** How long other processes have to say what they know after a loss, in ms. Default: 1500. */
  readonly graceMs?: number;
  /** How often records that are on disk are reported, in ms. Default: 10 s. */
  readonly reportMs?: number;
  /** For how long the log is kept for a process after it was seen last, in ms. Default: 10 minutes. */
  readonly keepForMs?: number;
  /** Puts back what a tag has beside its state, before it is opened again after a loss. */
  readonly putBack?: (tag: string) => Promise<void>;
}

/** This process's copy of the state that all share: the users folder, as `files` has it. */
export interface Replica extends LedgerReplica {
  /** Takes all that Redis has by now. */
  catchUp(): Promise<void>;
  /** Takes nothing more, and reports what is on disk. */
  close(): Promise<void>;
}

const leaseMs = 5000;
/** How often the files are written for the sake of records that are not in the journal, at the most, in ms. */
const saveEveryMs = 30_000;

/**
 * Brings the folder and Redis together: what is newer in Redis comes into the folder, an empty Redis is seeded from it.
 * Resolves when both are the same; then goes on following. Rejects where Redis cannot be reached.
 */
export async function openReplica(options: ReplicaOptions): Promise<Replica> {
  const { redis, usersDir, ledger, clock, log } = options;
  const { node = randomBytes(6).toString("hex"), pollMs = 200, graceMs = 1500 } = options;
  const { reportMs = 10_000, keepForMs = 600_000 } = options;
  const { follower: ledgerFollower } = ledger;
  const documents = createDocumentFolder(usersDir);
  const known = await readKnownEpochs(usersDir);
  const followers = redis.tags.map((tag) =>
    createTagFollower({ tag, redis, ledger: ledgerFollower, documents, log, knownEpochs: known[tag] ?? [] }),
  );
  const saveEpochs = createEpochsFile(usersDir, known, followers);
  const own = await openOwnState({ redis, usersDir, followers, ledger: ledgerFollower, documents });
  const byTag = new Map(followers.map((follower) => [follower.tag, follower]));
  const mending = new Map<string, Promise<void>>();
  let rebuilding: Promise<void> | undefined;
  let closed = false;
  let seeded = 0;
  const readersKeys = (tag: string) => [redis.keyIn(tag, "log"), redis.keyIn(tag, "readers")] as const;
  const preparing: ((tag: string) => Promise<void>)[] = [];

  const mendOptions = {
    redis,
    node,
    graceMs,
    leaseMs,
    followers,
    log,
    onSeeded: () => {
      seeded++;
    },
    weight: () => Math.max(own.size(), ledgerFollower.accounts.size),
    async restore(loss: Parameters<typeof restoreTag>[0], lead: Parameters<typeof restoreTag>[1]): Promise<void> {
      await restoreTag(loss, lead, {
        redis,
        ledger: ledgerFollower,
        documents,
        log,
        recent: () => followers.flatMap((follower) => follower.recent()),
      });
      await options.putBack?.(loss.tag);
    },
    async prepare(tag: string): Promise<void> {
      // Who reads the log is lost with it: others would trim it before this process has read what is put back.
      await redis.call("log_seen", readersKeys(tag), [node, streamStart, keepForMs]);
      for (const work of preparing) await work(tag);
    },
    newEpoch: () => randomBytes(4).toString("hex"),
  };

  function mend(follower: TagFollower): Promise<void> {
    const { tag } = follower;
    let running = mending.get(tag);
    if (running === undefined) {
      running = mendTag(follower, mendOptions).finally(() => mending.delete(tag));
      mending.set(tag, running);
    }
    return running;
  }

  /**
   * All tags are stopped together, and each is opened only once the records of the others are back: a process that has
   * noticed it in one tag takes part in all of them. Where nothing is to be mended this ends at once.
   */
  async function mendAll(): Promise<void> {
    await Promise.all(followers.map(mend));
  }

  const turns = new Map<string, Promise<unknown>>();

  /** Takes what is new in a tag; where something is wrong, mends it. One call after another: each looks for itself. */
  function follow(follower: TagFollower): Promise<void> {
    const result = (turns.get(follower.tag) ?? Promise.resolve()).then(() => followNow(follower));
    turns.set(
      follower.tag,
      result.catch(() => undefined),
    );
    return result;
  }

  async function followNow(follower: TagFollower): Promise<void> {
    for (;;) {
      const state = await follower.drain();
      if (state === "current") return;
      if (state === "gap") await rebuild();
      else {
        if (state === "lost") await fenceAll(redis);
        await mendAll();
      }
    }
  }

  /** Replaces this node's accounts and documents by those of Redis. */
  function rebuild(): Promise<void> {
    rebuilding ??= rebuildNow().finally(() => (rebuilding = undefined));
    return rebuilding;
  }

  async function rebuildNow(): Promise<void> {
    const isFirst = followers.some((follower) => follower.epoch() === "");
    const resumes = await Promise.all(followers.map((follower) => follower.pause()));
    try {
      await rebuildPaused(isFirst);
    } finally {
      for (const resume of resumes) resume();
    }
  }

  async function rebuildPaused(isFirst: boolean): Promise<void> {
    await own.check();
    await tellReaders(() => streamStart);
    const { accounts, positions } = await copyAccounts(redis);
    // Documents before the positions: once these are on disk, nobody looks for what was not copied. What changes meanwhile
    // comes again with the log.
    const found = new Set<string>();
    for await (const document of copyDocuments(redis)) {
      found.add(`${document.kind}/${document.name}`);
      await documents.write(document);
    }
    for await (const { kind, name } of documents.all()) {
      if (!found.has(`${kind}/${name}`)) await documents.write({ kind, name, text: null });
    }
    // Before the positions as well: what is copied now comes without the records that led to it.
    if (accounts.size > 0) await noteLack(usersDir, isFirst, clock.now());
    for (const name of ledgerFollower.accounts.keys()) {
      if (!accounts.has(name)) ledgerFollower.adopt(name, { windows: [], keys: new Map() });
    }
    for (const [name, past] of accounts) ledgerFollower.adopt(name, past);
    for (const [tag, { epoch, seq }] of positions) byTag.get(tag)?.restart(epoch, seq);
    await ledgerFollower.save();
    const facts = { event: "replica_rebuilt", accounts: accounts.size, documents: found.size };
    if (isFirst) {
      const history = accounts.size > 0 ? ": its usage history begins now" : "";
      log.info(facts, `the users folder was filled from Redis${history}`);
    } else {
      const message =
        "this process was away for longer than the log is kept: what is used was copied from Redis, and the usage history lacks that time";
      log.error(facts, message);
    }
  }

  const polling = new AbortController();

  let refusal: string | undefined;

  async function poll(): Promise<void> {
    let lastError = "";
    for (;;) {
      await sleep(pollMs, undefined, { signal: polling.signal, ref: false }).catch(() => undefined);
      if (closed) return;
      try {
        await followAll();
        await saveEpochs();
        lastError = "";
        refusal = undefined;
      } catch (error) {
        const text = error instanceof Error ? error.message : String(error);
        const isForeign = error instanceof ForeignStateError;
        refusal = isForeign
          ? "Redis has the state of others, and the users folder one of its own: see the log"
          : undefined;
        if (isForeign && text !== lastError) log.error({ event: "foreign_state", err: error }, "nothing is served");
        else if (text !== lastError) log.warn({ err: error }, "the shared log cannot be followed at the moment");
        lastError = text;
      }
    }
  }

  async function followAll(): Promise<void> {
    const results = await Promise.allSettled(followers.map(follow));
    const errors = results.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : []));
    if (errors.length === 0) return;
    const foreign = errors.find((error) => error instanceof ForeignStateError);
    if (foreign !== undefined) await takeNotes();
    throw foreign ?? errors[0];
  }

  let lastNotesError = "";

  /**
   * Redis has the state of others now. What it acknowledged last to this process has not come with the log, and is only
   * in memory. Never throws: what cannot be written is tried again with the next reading.
   */
  async function takeNotes(): Promise<void> {
    try {
      let records = 0;
      for (const follower of followers) records += await follower.takeNotes();
      if (records === 0) return;
      await ledgerFollower.synced();
      const message = "charges and changes that Redis had acknowledged last are in the users folder";
      log.info({ event: "notes_kept", records }, message);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      if (text !== lastNotesError)
        log.error({ err: error }, "what Redis had acknowledged last cannot be written at the moment");
      lastNotesError = text;
    }
  }

  /** By tag: what is on disk here, and in which epoch. */
  const reported = new Map<string, readonly [epoch: string, id: string]>();
  let savedAt = clock.monotonic();

  async function tellReaders(idOf: (follower: TagFollower) => string): Promise<void> {
    const calls = followers.map((follower) =>
      redis.call("log_seen", readersKeys(follower.tag), [node, idOf(follower), keepForMs]),
    );
    await Promise.all(calls);
  }

  /** Says what is on disk here, so that the log can be trimmed. */
  async function report(): Promise<void> {
    const read = followers.map((follower) => [follower, follower.epoch(), follower.readUpTo()] as const);
    const isSaving = clock.monotonic() - savedAt >= saveEveryMs;
    const ready = read.filter(([follower]) => isSaving || !follower.isPassed());
    if (isSaving) {
      await ledgerFollower.save();
      savedAt = clock.monotonic();
    } else await ledgerFollower.synced();
    for (const [{ tag }, epoch, id] of ready) if (id !== undefined) reported.set(tag, [epoch, id]);
    await tellReaders((follower) => {
      const [epoch, id] = reported.get(follower.tag) ?? ["", streamStart];
      // Ids of a stream that is gone say nothing about the next one.
      return epoch === follower.epoch() ? id : streamStart;
    });
  }

  /** Waits while the tag is kept still for a copy. */
  async function endOfCopy(tag: string): Promise<void> {
    for (;;) {
      const { fence } = await readLogPage(redis, tag, streamStart, 1);
      if (fence === "" || fence === "mend") return;
      await sleep(20);
    }
  }

  const looking = new Map<string, Promise<boolean>>();

  /** Whether Redis lacks an account in which something was counted: it was evicted, or removed by hand. */
  function isMissing(tag: string): Promise<boolean> {
    const look = async (): Promise<boolean> => {
      const begun = [...ledgerFollower.accounts.values()].filter(({ counts }) => counts.hasBegun);
      const keys = begun
        .filter(({ name }) => redis.tagOf(name) === tag)
        .map(({ name }) => redis.keyIn(tag, "acct", name));
      const found = await Promise.all(keys.map((key) => redis.send(key, ["EXISTS", key])));
      return found.includes(0);
    };
    const running = looking.get(tag) ?? look().finally(() => looking.delete(tag));
    looking.set(tag, running);
    return running;
  }

  await own.check();
  await tellReaders(() => streamStart);
  const isNew = followers.some((follower) => follower.epoch() === "");
  await followAll();
  await own.checkAgain();
  await saveEpochs();
  // Where it stands in each log is on disk before it serves: a start without that takes all from Redis.
  if (isNew) await ledgerFollower.save();
  if (seeded > 0)
    log.info({ event: "state_seeded", tags: seeded }, "Redis had nothing: it has what the users folder has");
  const polled = poll();
  const reporting = setInterval(() => {
    void report().catch((error: unknown) => {
      log.warn({ err: error }, "what this process has on disk cannot be reported at the moment: the log grows");
    });
  }, reportMs);
  reporting.unref();

  return {
    lastSeq: (tag) => byTag.get(tag)?.lastSeq() ?? 0,
    hasBegun: (account) => ledgerFollower.accounts.get(account)?.counts.hasBegun ?? false,
    note(tag, record: LogRecord) {
      const { seq, kind, writtenAt, body } = record;
      byTag.get(tag)?.note({ seq, kind, at: writtenAt, body, origin: seq });
    },
    async repair(tag) {
      const follower = byTag.get(tag);
      if (follower === undefined) throw new RangeError(`there is no tag ${tag}`);
      await endOfCopy(tag);
      await follow(follower);
      if (!(await isMissing(tag))) return;
      await fenceAll(redis);
      await mendAll();
      await follow(follower);
    },
    async catchUp() {
      if (mending.size > 0) throw new RedisUnavailableError("what Redis had lost is being put back");
      await followAll();
    },
    async usage(query) {
      await followAll();
      return ledger.usage(query);
    },
    async *usageOfAll(span) {
      await followAll();
      yield* ledger.usageOfAll(span);
    },
    async *recorded(after) {
      await followAll();
      yield* withLacks(ledger.recorded(after), await readLacks(usersDir), after);
    },
    missingBefore: () => missingBefore(usersDir),
    problems: () => ledger.problems(),
    beforeOpening: (work) => void preparing.push(work),
    refusal: () => refusal,
    async close() {
      closed = true;
      clearInterval(reporting);
      polling.abort();
      await polled;
      await saveEpochs();
    },
  };
}
