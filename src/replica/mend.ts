import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../lib/log.ts";
import { replyList, replyNumber, replyText, type Redis } from "../lib/redis/redis.ts";
import { logKeysOf, pairsOf, readLogPage, streamStart } from "./log-page.ts";
import type { LoggedRecord } from "./logged-records.ts";
import type { TagFollower } from "./tag-follower.ts";

/** What a mended tag had lost. */
export interface Loss {
  readonly tag: string;
  /** Whether nothing was left: then all accounts and documents of the tag are written again. */
  readonly isTotal: boolean;
  /** Whether more was lost than the node that puts it back remembers, one by one: its documents decide then. */
  readonly isOld: boolean;
  /** Records that are back in the log. */
  readonly records: readonly LoggedRecord[];
}

export interface MendOptions {
  readonly redis: Redis;
  /** This process. */
  readonly node: string;
  /** How long others have to say what they know, in ms. */
  readonly graceMs: number;
  readonly leaseMs: number;
  readonly followers: readonly TagFollower[];
  /** How much this node has, of whatever kind: of nodes that have followed equally far, the one with most decides. */
  readonly weight: () => number;
  /** Writes accounts, and what else the loss concerns, from this node's replica. `lead` proves that this node may. */
  readonly restore: (loss: Loss, lead: { readonly key: string; readonly node: string }) => Promise<void>;
  /** Every node's part in a tag that has lost something: what it alone knows, and needs nobody's lead. */
  readonly prepare: (tag: string) => Promise<void>;
  readonly newEpoch: () => string;
  /** Called for a tag of which Redis had nothing, and this process knew nothing else. */
  readonly onSeeded: () => void;
  readonly log: Log;
}

/** How often those who wait ask again, in ms. */
const askAgainMs = 50;
const recordsAtOnce = 100;

/** Stops all tags, since a group's account has its part of what is in the logs of other tags. Throws as Redis.call. */
export async function fenceAll(redis: Redis): Promise<void> {
  await Promise.all(
    redis.tags.map((tag) => redis.call("log_fence", [redis.keyIn(tag, "mend"), redis.keyIn(tag, "logseq")], ["mend"])),
  );
}

/**
 * Puts back what a stopped tag has lost. All nodes take part: each says what it has that the log lacks; then one of
 * them, which has followed furthest, writes it into the log, and the accounts as its replica has them. Meanwhile the
 * tag refuses everything. Resolves when the tag is open, by whomever. Throws as Redis.call.
 */
export async function mendTag(follower: TagFollower, options: MendOptions): Promise<void> {
  const { redis, node, graceMs, leaseMs, weight } = options;
  const { tag } = follower;
  const [logKey, seqKey] = logKeysOf(redis, tag);
  const mendKey = redis.keyIn(tag, "mend");
  const claimed = new Set<string>();
  await options.prepare(tag);
  for (;;) {
    const seen = await follower.takeAll();
    const missing = follower.missingFrom(seen).filter(([identity]) => !claimed.has(identity));
    for (let at = 0; at === 0 || at < missing.length; at += recordsAtOnce) {
      const some = missing.slice(at, at + recordsAtOnce);
      const records = some.flatMap(([identity, { kind, at: time, body, origin }]) => {
        claimed.add(identity);
        return [identity, JSON.stringify({ kind, at: time, body, origin })];
      });
      const facts = [node, follower.position(), follower.lastSeq(), weight()];
      await redis.call("log_claim", [mendKey, seqKey], [...facts, ...records]);
    }
    const [word, all] = replyList(await redis.call("log_lead", [mendKey, seqKey], [node, graceMs, leaseMs]));
    if (word === "OVER") return;
    if (word === "GO" && (await lead(pairsOf(replyList(all ?? []).map(replyText))))) return;
    await sleep(askAgainMs);
  }

  /** Returns whether the tag is open; if not, another node leads. */
  async function lead(all: Readonly<Record<string, string>>): Promise<boolean> {
    const page = await readLogPage(redis, tag, streamStart, 1);
    const claims = Object.entries(all).filter(([field]) => field.startsWith("claim:"));
    const known = claims.map(([, text]) => Number(text.split(":")[1]));
    const covered = Math.max(follower.position(), ...claims.map(([, text]) => Number(text.split(":")[0])));
    const most = Math.max(page.seq, page.covered, follower.lastSeq(), ...known);
    const seen = await follower.takeAll();
    const records = Object.entries(all)
      .filter(([field]) => field.startsWith("rec:") && !seen.has(field.slice("rec:".length)))
      .map(([, text]) => ({ seq: 0, ...(JSON.parse(text) as Omit<LoggedRecord, "seq">) }))
      .sort((a, b) => a.at - b.at || a.origin - b.origin);
    let last = most;
    for (let at = 0; at < records.length; at += recordsAtOnce) {
      const some = records.slice(at, at + recordsAtOnce);
      const args = some.flatMap(({ kind, at: time, origin, body }) => [kind, time, origin, body]);
      const reply = await redis.call("log_put_back", [mendKey, logKey, seqKey], [node, most, ...args]);
      last = replyNumber(reply);
      if (last === 0) return false;
      for (const record of some) await follower.take({ id: "", ...record });
    }
    if (!(await othersAreMerged())) return false;
    const isTotal = page.epoch === "";
    const isOld = !isTotal && page.seq + 1 < follower.remembersFrom();
    await options.restore({ tag, isTotal, isOld, records }, { key: mendKey, node });
    const epoch = options.newEpoch();
    // All of them: some process may have missed the losses before this one.
    const args = [node, epoch, follower.epochs().join(" "), covered, last] as const;
    if (replyNumber(await redis.call("log_open", [mendKey, seqKey], args)) === 0) return false;
    const whole = isTotal && follower.epoch() === "";
    follower.enter(epoch, last);
    report({ tag, isTotal, isOld, records }, whole);
    return true;
  }

  /** A group's account is changed by records of other tags: these must be back before it is written. */
  async function othersAreMerged(): Promise<boolean> {
    const others = new Set(options.followers.filter((other) => other !== follower));
    for (;;) {
      if (replyNumber(await redis.call("log_renew", [mendKey], [node, leaseMs])) === 0) return false;
      for (const other of others) {
        const keys = [redis.keyIn(other.tag, "mend"), redis.keyIn(other.tag, "logseq")] as const;
        const page = replyNumber(await redis.call("log_merged", keys, []));
        if (page === 0) continue;
        await other.takeAll();
        others.delete(other);
      }
      if (others.size === 0) return true;
      await sleep(askAgainMs);
    }
  }

  function report({ isTotal, records }: Loss, isFirst: boolean): void {
    if (isFirst) {
      options.onSeeded();
      return;
    }
    const kinds: Record<string, number> = {};
    for (const { kind } of records) kinds[kind] = (kinds[kind] ?? 0) + 1;
    options.log.error(
      { event: "state_restored", tag, everything: isTotal, records: records.length, kinds, seq: follower.position() },
      "Redis had lost what it had acknowledged: it was put back from what the processes remember",
    );
  }
}
