import { setTimeout as sleep } from "node:timers/promises";
import { ErrorReply } from "@redis/client";
import type { Log } from "../log.ts";
import type { FunctionLibrary } from "./library.ts";
import { createCallBatches } from "./call-batches.ts";
import { createCallDeadlines } from "./call-deadlines.ts";
import { connectRedis } from "./connection.ts";
import { describeTarget, type RedisTarget } from "./redis-url.ts";
import { type Redis, type RedisReply, RedisReplyError, RedisUnavailableError } from "./redis.ts";

export interface OpenRedisOptions {
  readonly target: RedisTarget;
  readonly library: FunctionLibrary;
  readonly keyPrefix: string;
  /** How long a call may take in all, in ms. */
  readonly timeoutMs: number;
  readonly log: Log;
  /** Monotonic ms. */
  readonly monotonic: () => number;
}

/** Calls without an answer, at most; more are refused at once. */
const maxInFlight = 20_000;
/** Pause before a call is repeated, in ms. */
const repeatAfterMs = 25;
/** How long replicas are waited for at a time, in ms: meanwhile the connection answers nothing else. */
const replicaWaitMs = 200;
/** Hash tags: the state is spread over so many slots, and so over at most as many servers of a cluster. A contract. */
const tagCount = 16;
/** Replies that say that nothing has run, and that a later try may succeed. */
const passing = /^(?:LOADING|MASTERDOWN|READONLY|CLUSTERDOWN|TRYAGAIN|BUSY|NOREPLICAS|MOVED|ASK)\b/;

/**
 * Connects, and loads the library. Rejects if Redis cannot be reached or refuses the login: a later loss of the
 * connection is repaired by itself.
 *
 * @throws RedisUnavailableError, RedisReplyError
 */
export async function openRedis(options: OpenRedisOptions): Promise<Redis> {
  const { target, library, keyPrefix, timeoutMs, log, monotonic } = options;
  const where = describeTarget(target);
  const watchers = new Map<string, Set<(key: string | null) => void>>();
  let lastError = "";

  const connection = await connectRedis(target, {
    onError(error) {
      const text = error instanceof Error ? error.message : String(error);
      // One line for each new kind of error: a client repeats it at every attempt.
      if (text !== lastError) log.warn({ redis: where, err: error }, "the connection to Redis is troubled");
      lastError = text;
    },
    onInvalidate(key) {
      const kind = key?.split(":", 3)[2];
      for (const [watched, listeners] of watchers) {
        if (kind === undefined || kind === watched) for (const listener of listeners) listener(key);
      }
    },
  });
  const deadlines = createCallDeadlines(monotonic);
  let repeated = 0;
  let failed = 0;
  let answeredAt = monotonic();
  /** Whether the last call that ended did so without an answer. */
  let isSilent = false;
  let loading: Promise<void> | undefined;

  function load(): Promise<void> {
    loading ??= loadOnce().finally(() => (loading = undefined));
    return loading;
  }

  async function loadOnce(): Promise<void> {
    const replies = await connection.onEveryServer(["FUNCTION", "LOAD", library.code]);
    const refused = replies.find((reply) => reply instanceof Error && !reply.message.includes("already exists"));
    if (refused instanceof ErrorReply) {
      const message = /^ERR unknown command/i.test(refused.message) ? await tooOld() : refused.message;
      throw new RedisReplyError(message, { cause: refused });
    }
    if (refused instanceof Error) throw refused;
  }

  async function tooOld(): Promise<string> {
    const replies = await connection.onEveryServer(["INFO", "server"]);
    const versions = replies.map(
      (reply) => /^redis_version:(\S+)/m.exec(String(reply))?.[1] ?? "of an unknown version",
    );
    return `it is ${[...new Set(versions)].join(", ")} and has no functions (FUNCTION LOAD): Redis 7.0 or Valkey, or newer, is needed`;
  }

  /** The answer, once so many replicas have what its command wrote. */
  async function withReplicas(key: string, deadline: number, answer: Promise<RedisReply>, replicas: number) {
    // Right behind it, so on the same connection: WAIT speaks of what its own connection has written.
    const waiting = connection.send(key, ["WAIT", String(replicas), String(replicaWaitMs)]);
    const [reply, reached] = await Promise.all([answer, deadlines.before(deadline, waiting)]);
    if (Number(reached) >= replicas) return reply;
    throw new RedisUnavailableError(`${Number(reached)} of ${replicas} replicas have what was written`);
  }

  function tooMany(): RedisUnavailableError {
    failed++;
    return new RedisUnavailableError(`more than ${maxInFlight} calls to Redis have no answer yet`);
  }

  /** Sends a command until it has an answer and so many replicas have what it wrote, or the time is over. */
  async function send(key: string, command: readonly string[], replicas = 0): Promise<RedisReply> {
    if (deadlines.count() >= maxInFlight) throw tooMany();
    const deadline = monotonic() + timeoutMs;
    const isOver = (): boolean => monotonic() >= deadline;
    for (;;) {
      try {
        const answer = deadlines.before(deadline, connection.send(key, command));
        const reply = await (replicas === 0 ? answer : withReplicas(key, deadline, answer, replicas));
        answeredAt = monotonic();
        isSilent = false;
        return reply;
      } catch (error) {
        if (error instanceof ErrorReply) {
          // Nothing has run. Where the library cannot be loaded now, the next try says so again.
          if (error.message.includes("Function not found"))
            await deadlines.before(deadline, load()).catch(() => undefined);
          else if (!passing.test(error.message)) throw new RedisReplyError(error.message, { cause: error });
        }
        if (isOver()) {
          failed++;
          isSilent = true;
          throw new RedisUnavailableError(`Redis (${where}) did not answer within ${timeoutMs} ms`, { cause: error });
        }
        repeated++;
        await sleep(Math.min(repeatAfterMs, deadline - monotonic()));
      }
    }
  }

  try {
    await deadlines.before(monotonic() + timeoutMs, load());
  } catch (error) {
    deadlines.close();
    connection.close();
    throw error;
  }

  // Only a cluster has its keys in different places.
  const slotOf = target.kind === "cluster" ? tagIn : () => "";
  const batches = createCallBatches(library, slotOf, send);
  const keyIn: Redis["keyIn"] = (tag, kind, name) =>
    `${keyPrefix}:{${tag}}:${kind}${name === undefined ? "" : `:${name}`}`;
  const tags = Array.from({ length: tagCount }, (_, index) => index.toString(16).padStart(2, "0"));
  return {
    tags,
    tagOf: (name) => tags[hashOf(name) % tagCount] ?? "00",
    keyIn,
    call(name, keys, args, { replicas = 0, isNeeded } = {}) {
      if (batches.count() >= maxInFlight) return Promise.reject(tooMany());
      if (replicas === 0) return batches.call(name, keys, args, isNeeded);
      batches.flush();
      const command = ["FCALL", library.functionName(name), String(keys.length), ...keys, ...args.map(String)];
      return send(keys[0], command, replicas);
    },
    send(key, command) {
      // What was called before arrives before.
      batches.flush();
      return send(key, command);
    },
    onEveryServer: (command) => deadlines.before(monotonic() + timeoutMs, connection.onEveryServer(command)),
    onChange(kind, listener) {
      const known = watchers.get(kind);
      if (known !== undefined) {
        known.add(listener);
        return;
      }
      watchers.set(kind, new Set([listener]));
      connection.track(tags.map((tag) => keyIn(tag, kind)));
    },
    status: () => ({
      connected: connection.isReady(),
      inFlight: Math.max(deadlines.count(), batches.count()),
      failed,
      repeated,
    }),
    awayMs: () => (isSilent || !connection.isReady() ? Math.max(1, monotonic() - answeredAt) : 0),
    close() {
      deadlines.close();
      connection.close();
      return Promise.resolve();
    },
  };
}

/** The tag in a key. */
function tagIn(key: string): string {
  return key.slice(key.indexOf("{") + 1, key.indexOf("}"));
}

/** FNV-1a, 32 bits, of the text's UTF-16 units; the upper half is folded in, since the lowest bits alone are poor. */
function hashOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < name.length; at++) hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193);
  return (hash ^ (hash >>> 16)) & 0xffff;
}
