import { setTimeout as sleep } from "node:timers/promises";
import { type Redis, RedisUnavailableError, replyList, replyNumber, replyText } from "../lib/redis/redis.ts";
import { accountName, groupAccount } from "../quota/accounts.ts";
import type { LedgerRecord } from "../quota/memory/charge-record.ts";
import type { AdoptedPast } from "../quota/memory/ledger-follower.ts";
import type { Window } from "../quota/memory/period-counts.ts";
import { halfMadeCharges } from "../quota/redis/hold-leases.ts";
import { windowsOf } from "./account-fields.ts";
import { type LogEntry, logKeysOf, pairsOf, readLogPage, streamStart } from "./log-page.ts";
import { type DocumentRecord, ledgerRecordOf } from "./logged-records.ts";

/** All accounts of Redis at one moment. */
export interface AccountsCopy {
  readonly accounts: ReadonlyMap<string, AdoptedPast>;
  /** By tag, where its log is. */
  readonly positions: ReadonlyMap<string, { readonly epoch: string; readonly seq: number }>;
}

/** How long all tags are kept still at the most, in ms. */
const stillMs = 5000;
/**
 * How long before that nothing new begins, in ms: a charge of a user's account is followed by that of the group's, in a
 * tag of its own. Many times as long as an answer of Redis takes.
 */
const closingMs = 100;
/** Between two looks for charges that a process which is slow, or gone, has made by half, in ms. Others end them by their leases. */
const lookMs = 250;
/** How long to wait for such charges at the most, in ms: several times the lease of a request. */
const longestWaitMs = 90_000;
const namesAtOnce = "1000";
const documentsAtOnce = 64;
const recordsAtOnce = 500;

/** A key of Redis by its kind and the name behind it. */
interface NamedKey {
  readonly kind: string;
  readonly name: string;
}

/**
 * Copies what accounts have used. All tags are kept still meanwhile: a group's account and the records of its members are
 * in different tags, so what has begun in one must have ended in the other: a copy with the user's part of a charge
 * would never get the group's. Throws as Redis.call, and RedisUnavailableError where a tag is not whole.
 */
export async function copyAccounts(redis: Redis): Promise<AccountsCopy> {
  const deadline = performance.now() + longestWaitMs;
  // Where that is too short, as over a slow network, twice as long the next time, and requests in between.
  for (let waitMs = closingMs; ; waitMs = Math.min(2 * waitMs, stillMs / 2)) {
    if (waitMs > closingMs) await sleep(waitMs);
    await waitForHalfMadeCharges(redis, deadline);
    const before = await newestOf(redis);
    const names = await namesOf(redis, ["acct", "acctkey"]);
    const fences = redis.tags.map((tag) => [redis.keyIn(tag, "mend"), redis.keyIn(tag, "logseq")] as const);
    try {
      await keepStill(redis, fences, waitMs);
      if ((await halfMadeCharges(redis)).size === 0 || performance.now() > deadline) {
        await addChargedSince(redis, before, names);
        return await copyStill(redis, names);
      }
    } finally {
      await Promise.allSettled(fences.map((keys) => redis.call("log_release", keys, [])));
    }
  }
}

/** Waits while the same charge is half made at two looks: where nothing has failed it is so for a moment. */
async function waitForHalfMadeCharges(redis: Redis, deadline: number): Promise<void> {
  let open = await halfMadeCharges(redis);
  while (open.size > 0 && performance.now() < deadline) {
    await sleep(lookMs);
    const next = await halfMadeCharges(redis);
    open = new Set([...next].filter((lease) => open.has(lease)));
  }
}

async function keepStill(
  redis: Redis,
  fences: readonly (readonly [mend: string, seq: string])[],
  waitMs: number,
): Promise<void> {
  await Promise.all(fences.map(([, seqKey]) => redis.call("log_close", [seqKey], [stillMs])));
  await sleep(waitMs);
  for (const keys of fences) {
    while (replyNumber(await redis.call("log_fence", keys, [stillMs])) === 0) {
      if ((await redis.send(keys[1], ["HGET", keys[1], "fenced"])) === "mend") throw notWhole();
      await sleep(100);
    }
  }
}

async function copyStill(
  redis: Redis,
  names: ReadonlyMap<string, ReadonlyMap<string, NamedKey>>,
): Promise<AccountsCopy> {
  const accounts = new Map<string, { windows: readonly Window[]; keys: Map<string, readonly Window[]> }>();
  const positions = new Map<string, { epoch: string; seq: number }>();
  for (const tag of redis.tags) {
    const page = await readLogPage(redis, tag, streamStart, 1);
    if (page.epoch === "" || page.fence === "mend") throw notWhole();
    const known = [...(names.get(tag)?.values() ?? [])];
    const [logKey, seqKey] = logKeysOf(redis, tag);
    const keys = known.map(({ kind, name }) => redis.keyIn(tag, kind, name));
    const [seq, ...hashes] = replyList(await redis.call("ledger_accounts", [logKey, seqKey, ...keys], []));
    positions.set(tag, { epoch: page.epoch, seq: replyNumber(seq) });
    for (const [at, { kind, name }] of known.entries()) {
      const windows = windowsOf(pairsOf(replyList(hashes[at] ?? []).map(replyText)));
      const [account = "", id = ""] = name.split("/", 2);
      const entry = accounts.get(account) ?? { windows: [], keys: new Map<string, readonly Window[]>() };
      if (kind === "acct") entry.windows = windows;
      else entry.keys.set(id, windows);
      accounts.set(account, entry);
    }
  }
  return { accounts, positions };
}

/** By tag, the stream's id of the newest record. */
async function newestOf(redis: Redis): Promise<ReadonlyMap<string, string>> {
  const pages = redis.tags.map(async (tag) => [tag, await readLogPage(redis, tag, streamStart, 1)] as const);
  return new Map((await Promise.all(pages)).map(([tag, { newest }]) => [tag, newest || streamStart]));
}

/** Adds the accounts in which something was counted for the first time since the names were looked for. */
async function addChargedSince(
  redis: Redis,
  before: ReadonlyMap<string, string>,
  names: ReadonlyMap<string, Map<string, NamedKey>>,
): Promise<void> {
  for (const [tag, start] of before) {
    for (let after = start; ;) {
      const { entries } = await readLogPage(redis, tag, after, recordsAtOnce);
      for (const each of entries.flatMap(accountsIn)) {
        const [account = ""] = each.name.split("/", 1);
        names.get(redis.tagOf(account))?.set(`${each.kind}:${each.name}`, each);
      }
      if (entries.length < recordsAtOnce) break;
      after = entries.at(-1)?.id ?? after;
    }
  }
}

/** The names of the accounts that a record counts in, as in the keys of Redis. */
function accountsIn(entry: LogEntry): readonly NamedKey[] {
  let record: LedgerRecord | undefined;
  try {
    record = ledgerRecordOf(entry);
  } catch {
    // One that nobody can read counts for nobody's copy.
    return [];
  }
  if (record === undefined) return [];
  const names: NamedKey[] = [{ kind: "acct", name: record.user }];
  if ("apiKey" in record && record.apiKey !== undefined)
    names.push({ kind: "acctkey", name: `${record.user}/${record.apiKey}` });
  if ("group" in record && record.group !== undefined)
    names.push({ kind: "acct", name: groupAccount(record.group.name) });
  return names;
}

function notWhole(): RedisUnavailableError {
  return new RedisUnavailableError("what Redis had lost is being put back");
}

/** All documents of these tags, by default of all, each as it is when it is read. Throws as Redis.call. */
export async function* copyDocuments(
  redis: Redis,
  tags: readonly string[] = redis.tags,
): AsyncIterable<DocumentRecord & { readonly text: string }> {
  for (const [tag, names] of await namesOf(redis, ["doc"], tags)) {
    const all = [...names.values()];
    for (let at = 0; at < all.length; at += documentsAtOnce) {
      const some = all.slice(at, at + documentsAtOnce).map(async ({ name: path }) => {
        const key = redis.keyIn(tag, "doc", path);
        const text = await redis.send(key, ["HGET", key, "t"]);
        const slash = path.indexOf("/");
        return { kind: path.slice(0, slash), name: path.slice(slash + 1), text };
      });
      for (const { text, ...document } of await Promise.all(some)) {
        if (text !== null) yield { ...document, text: replyText(text) };
      }
    }
  }
}

/** All keys of some kinds, by tag and `KIND:NAME`. */
async function namesOf(
  redis: Redis,
  kinds: readonly string[],
  tags = redis.tags,
): Promise<ReadonlyMap<string, Map<string, NamedKey>>> {
  const found = new Map<string, Map<string, NamedKey>>();
  for (const tag of tags) {
    const names = new Map<string, NamedKey>();
    const start = redis.keyIn(tag, "");
    let cursor = "0";
    do {
      const scan = ["SCAN", cursor, "MATCH", `${start}*`, "COUNT", namesAtOnce];
      const [next, keys] = replyList(await redis.send(start, scan));
      cursor = replyText(next);
      for (const key of replyList(keys ?? []).map(replyText)) {
        const [kind, name] = split(key.slice(start.length));
        if (name !== undefined && kinds.includes(kind) && (kind === "doc" || isAccount(name)))
          names.set(`${kind}:${name}`, { kind, name });
      }
    } while (cursor !== "0");
    found.set(tag, names);
  }
  return found;
}

function split(text: string): readonly [string, string?] {
  const at = text.indexOf(":");
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

function isAccount(name: string): boolean {
  return accountName.test(name.split("/", 1)[0] ?? "");
}
