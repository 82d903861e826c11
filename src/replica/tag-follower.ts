import { setImmediate as nextTurn } from "node:timers/promises";
import type { Log } from "../lib/log.ts";
import type { Redis } from "../lib/redis/redis.ts";
import type { LedgerFollower } from "../quota/memory/ledger-follower.ts";
import type { DocumentFolder } from "./document-folder.ts";
import { type LogEntry, type LogPage, readLogPage, streamStart } from "./log-page.ts";
import { documentOf, identityOf, ledgerRecordOf, loggedRecordOf, type LoggedRecord } from "./logged-records.ts";

/**
 * How a tag's log stands: `current`; `lost`: Redis lacks records that this node has, or has none at all; `mending`:
 * what was lost is being put back; `gap`: this node lacks records that the log has no more.
 */
type TagState = "current" | "lost" | "mending" | "gap";

/** Brings one tag's log into this node's users folder. Its verbs wait for each other. */
export interface TagFollower {
  readonly tag: string;
  /** The number of the newest record that is known, drained or noted. */
  lastSeq(): number;
  /** The number up to which this node has everything. */
  position(): number;
  /** The epoch of that number; "" if this node has never followed the tag. */
  epoch(): string;
  /** That epoch and those before it, newest first, as far as they are known. */
  epochs(): readonly string[];
  /** The stream's id of the record at the position; undefined before the first drain. */
  readUpTo(): string | undefined;
  /** Whether the position was last moved by a record that the journal doesn't have. */
  isPassed(): boolean;
  /** A record that has just been acknowledged to this node. */
  note(record: LoggedRecord): void;
  /** Takes what is new in the log. Throws as Redis.call, and where the journal or a file cannot be written. */
  drain(): Promise<TagState>;
  /** Takes all that is in the stream of a tag that is being mended. Returns the identities of its records. */
  takeAll(): Promise<ReadonlySet<string>>;
  /** Takes a record that the log has got back; it counts nothing where it has been counted, or was in a copy. */
  take(entry: LogEntry): Promise<void>;
  /**
   * Counts what was acknowledged to this node and has not come with the log: for a log that is gone. Should it come back,
   * these records are known. Returns how many there were. Throws where the journal or a file cannot be written.
   */
  takeNotes(): Promise<number>;
  /** Newest records that are not among these, oldest first. */
  missingFrom(identities: ReadonlySet<string>): readonly (readonly [string, LoggedRecord])[];
  /** The number from which on all records are among the newest ones, those of documents too: the journal has none of these. */
  remembersFrom(): number;
  /** The newest records, oldest first. */
  recent(): readonly LoggedRecord[];
  /** Goes on from here: the tag was mended with all that this node has. */
  enter(epoch: string, seq: number): void;
  /** Goes on from here, without what was before. Only between pause() and its end. */
  restart(epoch: string, seq: number): void;
  /** Waits for the verb that runs, and lets none begin until the returned function is called. */
  pause(): Promise<() => void>;
}

export interface TagFollowerOptions {
  readonly tag: string;
  readonly redis: Redis;
  readonly ledger: LedgerFollower;
  readonly documents: DocumentFolder;
  readonly log: Log;
  /** What `epochs` was when the process of this folder ended. */
  readonly knownEpochs: readonly string[];
}

/** Records read at a time. */
const pageSize = 500;
/** Records counted in one turn of the event loop: some tenths of a millisecond. */
const recordsInTurn = 20;
/** Newest records that are kept in memory for Redis, should it lose them; about 0.5 KB each. */
const keptRecords = 2000;
/** So many more before the oldest are dropped, together: to find its oldest, a Map skips all that were deleted before. */
const keptBeyond = 500;
const keptNotes = 20_000;

/** Starts where the ledger has stopped. */
export function createTagFollower(options: TagFollowerOptions): TagFollower {
  const { tag, redis, ledger, documents, log } = options;
  const [known, start] = [...ledger.positions].find(([name]) => name.startsWith(`${tag}.`)) ?? [`${tag}.`, 0];
  let epoch = known.slice(tag.length + 1);
  // Where the epochs were written after the position, those before this one in the list came later.
  let before = options.knownEpochs.slice(options.knownEpochs.indexOf(epoch) + 1);
  let position = start;
  let after = streamStart;
  /** Whether the stream has been compared with what this node has, since the start or since a surprise. */
  let compared = false;
  let passed = false;
  /** The newest records up to the position, by identity, oldest first. */
  const kept = new Map<string, LoggedRecord>();
  let noted = new Map<string, LoggedRecord>();
  let newest = position;
  let remembersFrom = position + 1;
  /** All records up to this number are in what was copied from Redis. */
  let copiedTo = 0;
  let turn: Promise<unknown> = Promise.resolve();

  function inTurn<T>(task: () => Promise<T>): Promise<T> {
    const result = turn.then(task);
    turn = result.catch(() => undefined);
    return result;
  }

  function keep(identity: string, record: LoggedRecord): void {
    kept.set(identity, record);
    if (kept.size <= keptRecords + keptBeyond) return;
    for (const [oldest, { seq }] of kept) {
      if (kept.size <= keptRecords) break;
      kept.delete(oldest);
      remembersFrom = Math.max(remembersFrom, seq + 1);
    }
  }

  /** What `read` finds in a record; undefined if it cannot be read. */
  function readable<T>(entry: LoggedRecord, read: (entry: LoggedRecord) => T): T | undefined {
    try {
      return read(entry);
    } catch (error) {
      log.error(
        { err: error, tag, seq: entry.seq },
        "a record of the shared log cannot be read: it is not counted here",
      );
      return undefined;
    }
  }

  const nameOf = (entry: LoggedRecord): string | undefined => readable(entry, identityOf);

  /**
   * From this number on a record may not have been counted though it is not kept: what was counted before the oldest record
   * that is kept was counted in its order.
   */
  const floor = (): number =>
    Math.max(
      [...kept.values()].reduce((least, { seq }) => Math.min(least, seq), position + 1),
      copiedTo + 1,
    );

  /**
   * Counts a record, unless it has been.
   * @param advances whether everything up to this record has been counted then
   */
  async function apply(entry: LogEntry, isCounted: boolean, advances: boolean): Promise<void> {
    const identity = nameOf(entry);
    const at = { log: `${tag}.${epoch}`, seq: advances ? entry.seq : position };
    let isWritten = false;
    if (identity !== undefined) {
      if (!isCounted && !kept.has(identity)) {
        const isDocument = entry.kind === "doc";
        const document = isDocument ? readable(entry, documentOf) : undefined;
        const record = isDocument ? undefined : readable(entry, ledgerRecordOf);
        if (document !== undefined) await documents.write(document);
        if (record !== undefined) {
          ledger.apply({ ...record, from: at });
          isWritten = true;
        }
        keep(identity, { ...entry, seq: at.seq });
      }
      noted.delete(identity);
    }
    if (entry.id !== "") after = entry.id;
    if (!advances) return;
    if (!isWritten) ledger.pass(at);
    passed = !isWritten;
    position = at.seq;
    newest = Math.max(newest, position);
  }

  /** Reads the whole stream from a first page, and takes what this node lacks of it. */
  async function compare(first: LogPage): Promise<{ readonly seen: Set<string>; readonly last: number }> {
    const from = floor();
    const seen = new Set<string>();
    let last = first.seq;
    for (let page = first; ;) {
      for (const entry of page.entries) {
        const identity = nameOf(entry);
        if (identity !== undefined) seen.add(identity);
        await apply(entry, entry.origin < from, first.epoch === epoch && entry.seq === position + 1);
        last = Math.max(last, entry.seq);
      }
      if (page.entries.length < pageSize) return { seen, last };
      page = await readLogPage(redis, tag, after, pageSize);
    }
  }

  function hasGap({ epoch: current, before: earlier, covered, seq, entries }: LogPage): boolean {
    const [oldest] = entries;
    if (current === epoch) return (oldest?.seq ?? seq + 1) > position + 1;
    if (!earlier.includes(epoch)) return true;
    return position < covered && (oldest === undefined || oldest.origin > position + 1);
  }

  /** Whether Redis is back in a state from before the last loss that was mended. */
  const isPast = ({ epoch: current }: LogPage): boolean => current !== epoch && before.includes(current);

  async function compareAll(): Promise<TagState> {
    const page = await readLogPage(redis, tag, streamStart, pageSize);
    if (page.fence === "mend") return "mending";
    if (page.epoch === "" || isPast(page)) return "lost";
    if (hasGap(page)) return "gap";
    const had = position;
    const isNext = page.epoch !== epoch;
    const firstSeq = page.entries[0]?.seq ?? page.seq + 1;
    after = streamStart;
    const { seen, last } = await compare(page);
    if (!isNext && last < had) return "lost";
    const lacks = ({ seq }: LoggedRecord): boolean => seq <= last && seq > (isNext ? page.covered : firstSeq - 1);
    if ([...kept].some(([identity, record]) => !seen.has(identity) && lacks(record))) return "lost";
    if ([...noted.values()].some(({ seq }) => seq <= last)) return "lost";
    ({ epoch } = page);
    before = [...page.before];
    position = last;
    newest = [...noted.values()].reduce((most, { seq }) => Math.max(most, seq), position);
    ledger.pass({ log: `${tag}.${epoch}`, seq: position });
    passed = true;
    compared = true;
    return "current";
  }

  async function drainNow(): Promise<TagState> {
    while (compared) {
      const page = await readLogPage(redis, tag, after, pageSize);
      if (page.fence === "mend") return "mending";
      if (page.epoch === "") return "lost";
      const [first] = page.entries;
      const follows =
        first === undefined
          ? page.seq === position && (page.newest || streamStart) === after
          : first.seq === position + 1;
      if (page.epoch !== epoch || !follows) compared = false;
      else {
        for (const [index, entry] of page.entries.entries()) {
          // Requests that run get their turn: a whole page takes milliseconds.
          if (index % recordsInTurn === recordsInTurn - 1) await nextTurn();
          await apply(entry, false, true);
        }
        // V8 links the tables of a map that is filled and emptied on and on, as in call-batches.ts: records that are
        // gone would live on.
        if (page.entries.length > 0) noted = new Map(noted);
        if (page.entries.length < pageSize) {
          if (noted.size === 0 || ![...noted.values()].some(({ seq }) => seq <= position)) return "current";
          compared = false;
        }
      }
    }
    return compareAll();
  }

  function goOn(next: string, seq: number): void {
    if (next !== epoch) before = [epoch, ...before];
    epoch = next;
    position = seq;
    newest = [...noted.values()].reduce((most, each) => Math.max(most, each.seq), seq);
    after = streamStart;
    compared = false;
    ledger.pass({ log: `${tag}.${epoch}`, seq });
    passed = true;
  }

  for (const record of ledger.logged) {
    if (record.from?.log.startsWith(`${tag}.`) !== true) continue;
    const logged = loggedRecordOf(record);
    const identity = nameOf(logged);
    if (identity !== undefined) keep(identity, logged);
  }
  if (kept.size === 0) copiedTo = position;

  return {
    tag,
    lastSeq: () => newest,
    position: () => position,
    epoch: () => epoch,
    epochs: () => [epoch, ...before].filter((each) => each !== ""),
    readUpTo: () => (compared ? after : undefined),
    isPassed: () => passed,
    note(record) {
      newest = Math.max(newest, record.seq);
      // Marks count nothing. Their loss is noticed by their numbers.
      if (record.seq <= position || record.kind === "mark") return;
      const identity = nameOf(record);
      if (identity === undefined || kept.has(identity)) return;
      noted.set(identity, record);
      if (noted.size <= keptNotes) return;
      const [oldest = ""] = noted.keys();
      noted.delete(oldest);
    },
    drain: () => inTurn(drainNow),
    takeAll: () =>
      inTurn(async () => {
        compared = false;
        const page = await readLogPage(redis, tag, streamStart, pageSize);
        const isKnown = page.epoch === epoch || page.before.includes(epoch) || isPast(page);
        if (page.epoch !== "" && !isKnown) return new Set();
        after = streamStart;
        return (await compare(page)).seen;
      }),
    take: (entry) =>
      inTurn(async () => {
        const isCounted = entry.origin < floor();
        await apply(entry, isCounted, false);
        // What became of its request is to be known all the same.
        const identity = isCounted ? nameOf(entry) : undefined;
        if (identity !== undefined && !kept.has(identity)) keep(identity, { ...entry, seq: position });
      }),
    takeNotes: () =>
      inTurn(async () => {
        const notes = [...noted.values()];
        for (const record of notes) await apply({ ...record, id: "" }, false, false);
        return notes.length;
      }),
    missingFrom: (identities) => [...kept, ...noted].filter(([identity]) => !identities.has(identity)),
    remembersFrom: () => remembersFrom,
    recent: () => [...kept.values(), ...noted.values()],
    enter: goOn,
    restart(next, seq) {
      kept.clear();
      copiedTo = seq;
      remembersFrom = seq + 1;
      // What was acknowledged since the copy was made is not in it.
      for (const [identity, each] of noted) if (next !== epoch || each.seq <= seq) noted.delete(identity);
      goOn(next, seq);
    },
    pause: () =>
      new Promise((paused) => {
        void inTurn(
          () =>
            new Promise<void>((resume) => {
              paused(resume);
            }),
        );
      }),
  };
}
