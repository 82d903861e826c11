import { randomBytes } from "node:crypto";
import { replyList, replyNumber, replyText, type Redis } from "../../lib/redis/redis.ts";
import { type RiskRecord, riskRecordSchema } from "../known-users.ts";

/** What Redis has of a user: the record, undefined if there is none or it makes no sense, and its number. */
export interface StoredTrust {
  /** "0": there is none. */
  readonly number: string;
  readonly record: RiskRecord | undefined;
}

/** The users' trust in Redis. Each verb rejects as Redis.call. */
export interface TrustStore {
  /**
   * Replaces what was read. Repeated with the same id, it takes effect once. Returns the new number, or what Redis has
   * where that is not what was read.
   *
   * @param text the record as JSON
   */
  put(user: string, read: string, text: string, of: TrustPut): Promise<string | StoredTrust>;
  get(user: string): Promise<StoredTrust>;
  all(tag: string): Promise<ReadonlyMap<string, StoredTrust>>;
  /** The users of a tag whose step has changed since a version; `life` is another one once Redis has lost them. */
  since(tag: string, version: number): Promise<TrustChanges>;
}

interface TrustPut {
  /** Of this change, among all. */
  readonly id: string;
  /** When the user was last active, in ms. */
  readonly at: number;
  readonly isNewStep: boolean;
}

interface TrustChanges {
  readonly life: string;
  readonly version: number;
  readonly changed: ReadonlyMap<string, StoredTrust>;
}

export function createTrustStore(redis: Redis): TrustStore {
  const trustKey = (tag: string): string => redis.keyIn(tag, "trust");
  const newKey = (tag: string): string => redis.keyIn(tag, "trustnew");
  return {
    async put(user, read, text, { id, at, isNewStep }) {
      const tag = redis.tagOf(user);
      const keys = [trustKey(tag), newKey(tag), redis.keyIn(tag, "trustlast")] as const;
      const life = randomBytes(9).toString("base64url");
      const args = [user, read, text, Math.floor(at), isNewStep ? 1 : 0, life, id];
      const [isPut, number, present] = replyList(await redis.call("trust_put", keys, args));
      if (isPut === 1) return replyText(number);
      return { number: replyText(number), record: recordOf(replyText(present)) };
    },
    async get(user) {
      return storedOf(replyText(await redis.call("trust_get", [trustKey(redis.tagOf(user))], [user])));
    },
    async all(tag) {
      const flat = replyList(await redis.call("trust_all", [trustKey(tag)], [])).map(replyText);
      const users = new Map<string, StoredTrust>();
      for (let at = 0; at < flat.length; at += 2) {
        const user = flat[at] ?? "";
        if (user !== "") users.set(user, storedOf(flat[at + 1] ?? ""));
      }
      return users;
    },
    async since(tag, version) {
      const [life, newest, changes] = replyList(
        await redis.call("trust_since", [trustKey(tag), newKey(tag)], [version]),
      );
      const changed = new Map<string, StoredTrust>();
      for (const change of replyList(changes ?? [])) {
        const [user = "", text = ""] = replyList(change).map(replyText);
        changed.set(user, storedOf(text));
      }
      return { life: replyText(life), version: replyNumber(newest), changed };
    },
  };
}

function storedOf(text: string): StoredTrust {
  const [number, id] = text.split(" ", 2);
  if (number === undefined || id === undefined) return { number: "0", record: undefined };
  return { number, record: recordOf(text.slice(number.length + id.length + 2)) };
}

/** Undefined if it cannot be read: another version of the proxy may have written it. */
function recordOf(text: string): RiskRecord | undefined {
  try {
    return riskRecordSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}
