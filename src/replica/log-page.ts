import { replyList, replyNumber, replyText, type Redis, type RedisReply } from "../lib/redis/redis.ts";

/** A record of a tag's log. */
export interface LogEntry {
  /** Of the stream; "" for one that was not read from it. */
  readonly id: string;
  readonly seq: number;
  readonly kind: string;
  /** When it was written, in ms since the epoch, by the clock of Redis. */
  readonly at: number;
  /** JSON. */
  readonly body: string;
  /** The number that it had before it was lost and put back; `seq` if it never was. */
  readonly origin: number;
}

/** A part of a tag's log, and the state of the whole. */
export interface LogPage {
  /** "" before the seeding, and after a loss. */
  readonly epoch: string;
  /** The number of the newest record. */
  readonly seq: number;
  /** "", `mend`, or the time in ms until which the tag is kept still. */
  readonly fence: string;
  /** The epochs before, and up to which number of the last one all records are in the accounts' state. */
  readonly before: readonly string[];
  readonly covered: number;
  /** The stream's id of the newest record. */
  readonly newest: string;
  readonly entries: readonly LogEntry[];
}

/** Before all records of a stream. */
export const streamStart = "0-0";

export const logKeysOf = (redis: Redis, tag: string): readonly [string, string] => [
  redis.keyIn(tag, "log"),
  redis.keyIn(tag, "logseq"),
];

/** Reads at most `count` records behind one. Throws as Redis.call. */
export async function readLogPage(redis: Redis, tag: string, after: string, count: number): Promise<LogPage> {
  const reply = replyList(await redis.call("log_read", logKeysOf(redis, tag), [after, count]));
  const [epoch, seq, fence, before, covered, newest, entries] = reply;
  return {
    epoch: replyText(epoch),
    seq: replyNumber(seq),
    fence: replyText(fence),
    before: replyText(before)
      .split(" ")
      .filter((each) => each !== ""),
    covered: replyNumber(covered),
    newest: replyText(newest),
    entries: replyList(entries ?? []).map(entryOf),
  };
}

function entryOf(reply: RedisReply): LogEntry {
  const [id, fields] = replyList(reply);
  const flat = fields === null || fields === undefined ? [] : replyList(fields).map(replyText);
  const { s = "0", k = "", t = "0", b = "", o = s } = pairsOf(flat);
  return { id: replyText(id), seq: Number(s), kind: k, at: Number(t), body: b, origin: Number(o) };
}

/** A flat list of fields and values as an object. */
export function pairsOf(flat: readonly string[]): Readonly<Record<string, string>> {
  const pairs: Record<string, string> = {};
  for (let at = 0; at + 1 < flat.length; at += 2) pairs[flat[at] ?? ""] = flat[at + 1] ?? "";
  return pairs;
}
