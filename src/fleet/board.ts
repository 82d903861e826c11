import { randomBytes } from "node:crypto";
import type { Log } from "../lib/log.ts";
import { type Redis, replyList, replyNumber, replyText } from "../lib/redis/redis.ts";

/** A value that was set. */
export interface BoardChange {
  readonly topic: string;
  readonly name: string;
  readonly value: string;
  /** Whether this process has set it. */
  readonly isOwn: boolean;
}

/** Values that all processes know: each learns every change within a second, and one that starts later all of them. */
export interface Board {
  /** Rejects if Redis is away; then it is set nowhere. */
  set(topic: string, name: string, value: string): Promise<void>;
  /** Calls the listener with each value of a topic, those that there are first. What it throws is logged. */
  follow(topic: string, listener: (change: BoardChange) => void): void;
  /** Reads what is new. Called by itself twice a second, and when Redis tells of a change. */
  look(): Promise<void>;
  close(): void;
}

/** How often what is new is read although Redis has told of nothing, in ms: that may have been lost. */
const lookMs = 500;

/**
 * The board of a fleet. A version orders all changes, so that nothing is missed that was set while this process could
 * not hear of it. If Redis loses the board, each process that notices puts back
 * the values it knows.
 *
 * @param process the name of this process among all, without spaces
 */
export function createBoard(redis: Redis, process: string, log: Log): Board {
  const tag = redis.tagOf("fleet");
  const keys = [redis.keyIn(tag, "board"), redis.keyIn(tag, "versions")] as const;
  const listeners = new Map<string, ((change: BoardChange) => void)[]>();
  /** By topic/name, with the id of the change in front, as Redis has them. */
  const known = new Map<string, string>();
  let life = "";
  let version = 0;
  let sets = 0;
  let looking: Promise<void> | null = null;
  let asked = false;

  function put(field: string, text: string, onlyIfNew: boolean) {
    const args = [field, text, onlyIfNew ? 1 : 0, randomBytes(9).toString("base64url")];
    return redis.call("board_put", keys, args);
  }

  function tell(field: string, text: string, some?: (change: BoardChange) => void): void {
    const [topic, name] = splitAt(field, "/");
    const [id, value] = splitAt(text, " ");
    const change = { topic, name, value, isOwn: id.startsWith(`${process}:`) };
    for (const listener of some === undefined ? (listeners.get(topic) ?? []) : [some]) {
      try {
        listener(change);
      } catch (error) {
        log.error({ err: error, topic, name }, "a change for all processes could not be carried out here");
      }
    }
  }

  /** False: Redis had lost the board, and it is to be read once more. */
  async function read(): Promise<boolean> {
    const [lifeNow, newest, changes] = replyList(await redis.call("board_since", keys, [version]));
    if (life !== "" && lifeNow !== life) {
      // Redis has lost it.
      life = "";
      version = 0;
      for (const [field, text] of known) await put(field, text, true);
      return false;
    }
    life = replyText(lifeNow);
    version = replyNumber(newest);
    for (const change of replyList(changes ?? [])) {
      const [field, text] = replyList(change).map(replyText);
      if (field === undefined || text === undefined || known.get(field) === text) continue;
      known.set(field, text);
      tell(field, text);
    }
    return true;
  }

  async function readAll(): Promise<void> {
    for (let isRead = false; !isRead || asked;) {
      asked = false;
      isRead = await read();
    }
  }

  function look(): Promise<void> {
    // What is set after the running look has begun is found by one more.
    asked = true;
    looking ??= readAll().finally(() => (looking = null));
    return looking;
  }

  const lookQuietly = (): void => {
    // Redis is away: the next look finds everything.
    look().catch(() => undefined);
  };
  redis.onChange("board", lookQuietly);
  const timer = setInterval(lookQuietly, lookMs).unref();

  return {
    async set(topic, name, value) {
      await put(`${topic}/${name}`, `${process}:${(++sets).toString(36)} ${value}`, false);
      await look();
    },
    follow(topic, listener) {
      const some = listeners.get(topic);
      if (some === undefined) listeners.set(topic, [listener]);
      else some.push(listener);
      for (const [field, text] of known) if (field.startsWith(`${topic}/`)) tell(field, text, listener);
    },
    look,
    close() {
      clearInterval(timer);
    },
  };
}

function splitAt(text: string, separator: string): readonly [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + separator.length)];
}
