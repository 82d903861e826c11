import { setTimeout as sleep } from "node:timers/promises";
import { type Redis, RedisUnavailableError, replyList, replyNumber, replyText } from "../lib/redis/redis.ts";
import { accountName } from "../quota/accounts.ts";
import type { AdoptedPast } from "../quota/memory/ledger-follower.ts";
import type { Window } from "../quota/memory/period-counts.ts";
import { windowsOf } from "./account-fields.ts";
import { logKeysOf, pairsOf, readLogPage, streamStart } from "./log-page.ts";
import type { DocumentRecord } from "./logged-records.ts";

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
const namesAtOnce = "1000";
const documentsAtOnce = 64;

/**
 * Copies what accounts have used. All tags are kept still meanwhile: a group's account and the records of its members are
 * in different tags. What has begun in one is ended in the other first. Throws as Redis.call, and RedisUnavailableError
 * where a tag is not whole.
 */
export async function copyAccounts(redis: Redis): Promise<AccountsCopy> {
  const names = await namesOf(redis, ["acct", "acctkey"]);
  const fences = redis.tags.map((tag) => [redis.keyIn(tag, "mend"), redis.keyIn(tag, "logseq")] as const);
  try {
    await Promise.all(fences.map(([, seqKey]) => redis.call("log_close", [seqKey], [stillMs])));
    await sleep(closingMs);
    for (const keys of fences) {
      while (replyNumber(await redis.call("log_fence", keys, [stillMs])) === 0) {
        if ((await redis.send(keys[1], ["HGET", keys[1], "fenced"])) === "mend") throw notWhole();
        await sleep(100);
      }
    }
    const accounts = new Map<string, { windows: readonly Window[]; keys: Map<string, readonly Window[]> }>();
    const positions = new Map<string, { epoch: string; seq: number }>();
    for (const tag of redis.tags) {
      const page = await readLogPage(redis, tag, streamStart, 1);
      if (page.epoch === "" || page.fence === "mend") throw notWhole();
      const known = names.get(tag) ?? [];
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
  } finally {
    await Promise.allSettled(fences.map((keys) => redis.call("log_release", keys, [])));
  }
}

function notWhole(): RedisUnavailableError {
  return new RedisUnavailableError("what Redis had lost is being put back");
}

/** All documents, each as it is when it is read. Throws as Redis.call. */
export async function* copyDocuments(redis: Redis): AsyncIterable<DocumentRecord & { readonly text: string }> {
  for (const [tag, names] of await namesOf(redis, ["doc"])) {
    for (let at = 0; at < names.length; at += documentsAtOnce) {
      const some = names.slice(at, at + documentsAtOnce).map(async ({ name: path }) => {
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

/** The names of all keys of some kinds, by tag. */
async function namesOf(redis: Redis, kinds: readonly string[]) {
  const found = new Map<string, { readonly kind: string; readonly name: string }[]>();
  for (const tag of redis.tags) {
    const names: { readonly kind: string; readonly name: string }[] = [];
    const start = redis.keyIn(tag, "");
    let cursor = "0";
    do {
      const scan = ["SCAN", cursor, "MATCH", `${start}*`, "COUNT", namesAtOnce];
      const [next, keys] = replyList(await redis.send(start, scan));
      cursor = replyText(next);
      for (const key of replyList(keys ?? []).map(replyText)) {
        const [kind, name] = split(key.slice(start.length));
        if (name !== undefined && kinds.includes(kind) && (kind === "doc" || isAccount(name)))
          names.push({ kind, name });
      }
    } while (cursor !== "0");
    found.set(tag, [...new Map(names.map((each) => [`${each.kind}:${each.name}`, each])).values()]);
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
