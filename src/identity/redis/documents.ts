import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type Redis,
  RedisReplyError,
  RedisUnavailableError,
  replyList,
  replyNumber,
  replyText,
} from "../../lib/redis/redis.ts";

/**
 * What is stored as documents, each with the text of a file of the users folder: NAME.toml, NAME.keys.toml,
 * NAME.sessions.toml, groups/NAME.toml, codes/ID.json, logins/ID.json, logins/linked/NAME.json; the name of an archived
 * one is its path in .archive.
 */
export type DocumentKind = "users" | "keys" | "sessions" | "groups" | "codes" | "logins" | "linked" | "archive";

/** A document as it was read. */
export interface StoredDocument {
  /** Another one after each change. */
  readonly version: string;
  readonly text: string;
  /** "" or a word of those who use it; not part of the file. */
  readonly mark: string;
}

/** A document that may not exist, and the time at which it was read by Redis's clock, in ms since the epoch. */
interface DocumentReading {
  readonly document: StoredDocument | undefined;
  readonly now: number;
}

interface DocumentChange {
  readonly kind: DocumentKind;
  readonly name: string;
  /** null deletes. */
  readonly text: string | null;
  readonly mark?: string;
  /** The version that is replaced, `new` if there must be none, `any`. */
  readonly expected: string;
  /** Groups: the revision that all of them must have. */
  readonly revision?: string;
}

/** A page of names in one tag, with the revision of all of them. */
interface NamePage {
  readonly revision: string;
  readonly names: readonly string[];
}

/** Documents in Redis. All verbs throw RedisUnavailableError, also where what is stored has been lost. */
export interface Documents {
  readonly keyOf: (kind: DocumentKind, name: string) => string;
  /** Reads it from Redis, past every cache. */
  read(kind: DocumentKind, name: string): Promise<DocumentReading>;
  /** Changes it if it is as expected. Returns the new version; undefined if it was not, and nothing has changed. */
  put(change: DocumentChange): Promise<string | undefined>;
  /** Moves a document to the archive. Returns false if it was not as expected. */
  archive(kind: "users" | "keys" | "sessions", name: string, document: StoredDocument, path: string): Promise<boolean>;
  /** Names of a tag in their order; undefined if the revision is still the known one. */
  namesIn(
    tag: string,
    kind: DocumentKind,
    page: { readonly after?: string; readonly limit: number; readonly known?: string },
  ): Promise<NamePage | undefined>;
  readonly tags: readonly string[];
  readonly tagOf: (kind: DocumentKind, name: string) => string;
  /** How old what was read may be now where it is used, in ms, because Redis is away; else 0. */
  readonly trustedAwayMs: () => number;
  /** Whose a session, a refresh family or an API key is. */
  owner(kind: PointerKind, id: string): Promise<string | undefined>;
  /** @param lifeMs undefined: for ever */
  point(kind: PointerKind, id: string, user: string, lifeMs?: number): Promise<void>;
  unpoint(kind: PointerKind, id: string): Promise<void>;
}

export type PointerKind = "session" | "family" | "key";

/** The tag of a document. All groups are in one: a change is checked against all of them. */
export function tagOfDocument(redis: Pick<Redis, "tagOf">, kind: string, name: string): string {
  if (kind === "groups") return redis.tagOf("groups");
  // Beside the account it belonged to: FOLDER/NAME.toml.
  return redis.tagOf(kind === "archive" ? (name.split("/").at(-1)?.split(".")[0] ?? name) : name);
}

/** The key that says whose a session, a refresh family or an API key is, in the tag of its id. */
export function pointerKey(redis: Pick<Redis, "tagOf" | "keyIn">, kind: PointerKind, id: string): string {
  return redis.keyIn(redis.tagOf(id), "ptr", `${kind}/${id}`);
}

/** Told of each record that this process has written, which it must know where Redis loses it: see log.lua. */
export type NoteDocument = (
  tag: string,
  record: { readonly seq: number; readonly at: number; readonly body: string },
) => void;

export interface DocumentsOptions {
  /** The number of the newest record of a tag that this process has; "0" if it has none. */
  readonly lastSeq: (tag: string) => string;
  readonly note?: NoteDocument | undefined;
  /** Documents.trustedAwayMs; default: 0. */
  readonly trustedAwayMs?: (() => number) | undefined;
  /** Whether to wait also for what is being put back, as while the process starts. Default: never. */
  readonly waitsForMending?: (() => boolean) | undefined;
}

/** How often a tag that is kept still is asked again, in ms, and for how long: several times what a copy may take. */
const askAgainMs = 20;
const stillMs = 15_000;

export function createDocuments(redis: Redis, options: DocumentsOptions): Documents {
  const { lastSeq, note, trustedAwayMs = () => 0, waitsForMending = () => false } = options;
  const tagOf = (kind: DocumentKind, name: string): string => tagOfDocument(redis, kind, name);
  const keyOf = (kind: DocumentKind, name: string): string => redis.keyIn(tagOf(kind, name), "doc", `${kind}/${name}`);
  const logOf = (tag: string): readonly [string, string] => [redis.keyIn(tag, "log"), redis.keyIn(tag, "logseq")];
  const setOf = (tag: string, kind: DocumentKind): readonly [string, string] => {
    return [redis.keyIn(tag, "index", kind), redis.keyIn(tag, "rev", kind)];
  };
  const pointerOf = (kind: PointerKind, id: string): string => pointerKey(redis, kind, id);

  /** Calls a function. Returns its reply, or undefined in a conflict. */
  async function call(name: string, tag: string, keys: readonly [string, ...string[]], args: readonly string[]) {
    const deadline = performance.now() + stillMs;
    for (;;) {
      const reply = replyList(await redis.call(name, [...keys, ...logOf(tag)], args));
      const [status] = reply;
      if (status === "OK") return reply;
      if (status === "CONFLICT" || status === "SAME") return undefined;
      if (status !== "LOST") throw new RedisReplyError(`unexpected reply of ${name}`);
      const mayWait = performance.now() < deadline && ((await isWhole(tag)) || waitsForMending());
      if (!mayWait) throw new RedisUnavailableError(`what Redis had in {${tag}} was lost, or is not there yet`);
      await sleep(askAgainMs);
    }
  }

  /** Whether a tag that refuses has lost nothing: it is kept still for a moment, while another process copies it. */
  async function isWhole(tag: string): Promise<boolean> {
    const [epoch, seq, fence] = replyList(await redis.call("log_read", logOf(tag), ["0-0", 1]));
    return replyText(epoch) !== "" && replyText(fence) !== "mend" && replyNumber(seq) >= Number(lastSeq(tag));
  }

  return {
    keyOf,
    tagOf,
    tags: redis.tags,
    trustedAwayMs,
    async read(kind, name) {
      const tag = tagOf(kind, name);
      const [, now, version, text, mark] = (await call("identity_get", tag, [keyOf(kind, name)], [lastSeq(tag)])) ?? [];
      const document =
        version === undefined
          ? undefined
          : { version: replyText(version), text: replyText(text), mark: replyText(mark) };
      return { document, now: replyNumber(now) };
    },
    async put({ kind, name, text, mark = "", expected, revision = "" }) {
      const tag = tagOf(kind, name);
      const id = randomUUID();
      const keys = [keyOf(kind, name), ...setOf(tag, kind), redis.keyIn(tag, "put", id)] as const;
      const verb = text === null ? "delete" : "put";
      const record = JSON.stringify({ kind, name, text });
      const args = [id, lastSeq(tag), name, expected, verb, text ?? "", mark, record, revision];
      const reply = await call("identity_put", tag, keys, args);
      if (reply === undefined) return undefined;
      const [seq = "0", at = "0"] = replyText(reply[1]).split(" ");
      note?.(tag, { seq: Number(seq), at: Number(at), body: record });
      return id;
    },
    async archive(kind, name, { version, text }, path) {
      const tag = tagOf(kind, name);
      const id = randomUUID();
      const archived = [redis.keyIn(tag, "doc", `archive/${path}`), redis.keyIn(tag, "index", "archive")];
      const keys = [keyOf(kind, name), ...setOf(tag, kind), ...archived, redis.keyIn(tag, "put", id)] as const;
      const records = [
        { kind, name, text: null },
        { kind: "archive", name: path, text },
      ].map((record) => JSON.stringify(record));
      const reply = await call("identity_move", tag, keys, [id, lastSeq(tag), name, version, path, ...records]);
      return reply !== undefined;
    },
    async namesIn(tag, kind, { after = "", limit, known = "" }) {
      const args = [lastSeq(tag), after, String(limit), known];
      const reply = await call("identity_names", tag, setOf(tag, kind), args);
      if (reply === undefined) return undefined;
      return { revision: replyText(reply[1]), names: replyList(reply[2] ?? []).map(replyText) };
    },
    async owner(kind, id) {
      const tag = redis.tagOf(id);
      const reply = await call("identity_pointer", tag, [pointerOf(kind, id)], [lastSeq(tag)]);
      return replyText(reply?.[1]) || undefined;
    },
    async point(kind, id, user, lifeMs) {
      const key = pointerOf(kind, id);
      const life = lifeMs === undefined ? [] : ["PX", String(Math.ceil(lifeMs))];
      await redis.send(key, ["SET", key, user, ...life]);
    },
    async unpoint(kind, id) {
      const key = pointerOf(kind, id);
      await redis.send(key, ["DEL", key]);
    },
  };
}

/** The name in the key of a document; undefined if it is of another kind. */
export function nameIn(key: string, kind: string): string | undefined {
  const document = key.slice(key.indexOf(":doc:") + ":doc:".length);
  return document.startsWith(`${kind}/`) ? document.slice(kind.length + 1) : undefined;
}
