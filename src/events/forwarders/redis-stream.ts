import { readFileSync } from "node:fs";
import { connectRedis, type RedisConnection } from "../../lib/redis/connection.ts";
import type { RedisTarget } from "../../lib/redis/redis-url.ts";
import { replyList, replyNumber } from "../../lib/redis/redis.ts";
import { cloudEventAttributes } from "../cloud-event.ts";
import type { Envelope } from "../envelope.ts";
import { deadlineOf, type EventTarget } from "./forwarder.ts";

export interface RedisStreamOptions {
  readonly target: RedisTarget;
  /** The key of the stream. */
  readonly stream: string;
  /** Most entries, but for one batch. */
  readonly maxLength: number;
  /** What may be removed: what all consumer groups have acknowledged, or the oldest beyond the length. */
  readonly trim: "acknowledged" | "length";
  /** Called with the number of entries that were removed before all groups had acknowledged them. */
  readonly onTrimmed: (count: number) => void;
  /** Default: 15 s. */
  readonly timeoutMs?: number;
}

const script = readFileSync(new URL("./redis-stream.lua", import.meta.url), "utf8");
/** Redis does nothing else while it adds a batch, for some 10 µs an event. */
const maxBatch = 200;

/**
 * Adds events to a Redis Stream: flat fields with the names of CloudEvents, and `data`. A batch is one call of a script,
 * so what comes later in it is never added without what comes before.
 */
export function createRedisStream(options: RedisStreamOptions): EventTarget {
  const { target, stream, maxLength, trim, onTrimmed, timeoutMs = 15_000 } = options;
  let connection: RedisConnection | undefined;
  let closed = false;
  /** Why the connection was lost, or could not be made again: a call says no more than that there is none. */
  let trouble: Error | undefined;

  function disconnect(): void {
    connection?.close();
    connection = undefined;
  }

  async function open(): Promise<RedisConnection> {
    // The client reconnects by itself, and says so in `isReady`.
    const onError = (error: unknown): void => {
      if (error instanceof Error) trouble = error;
    };
    const opened = await connectRedis(target, { onError, onInvalidate: () => undefined });
    if (closed) {
      opened.close();
      throw new Error("the forwarder is closed");
    }
    return opened;
  }

  return {
    maxBatch,
    async connect() {
      connection ??= await open();
    },
    async send(events) {
      if (connection === undefined) throw new Error("Redis is not connected");
      const command = ["EVAL", script, "1", stream, String(maxLength), trim, ...events.flatMap(fieldsOf)];
      const isReady = connection.isReady();
      const reply = await deadlineOf(timeoutMs, connection.send(stream, command), () => {
        disconnect();
        return new Error("Redis did not answer in time");
      }).catch((error: unknown) => {
        throw isReady ? error : (trouble ?? error);
      });
      trouble = undefined;
      const [added, trimmed] = replyList(reply).map(replyNumber);
      if (added !== events.length) {
        throw new Error(`the stream ${stream} is full of ${maxLength} events that not all consumer groups have read`);
      }
      if (trimmed !== undefined && trimmed > 0) onTrimmed(trimmed);
    },
    isConnected: () => connection?.isReady() === true,
    close() {
      closed = true;
      disconnect();
      return Promise.resolve();
    },
  };
}

/** What stands in the way of adding events. */
export interface RedisStreamProblem {
  readonly kind: "login" | "tls" | "rights" | "key" | "unreachable";
  readonly reason: string;
}

/** The first command that the user may not use with the key; nil: none. Redis before 7 can't be asked. */
const checkScript = `
local stream = KEYS[1]
local commands = {
  { "EXISTS", stream }, { "XINFO", "GROUPS", stream }, { "XPENDING", stream, "group" }, { "XLEN", stream },
  { "XRANGE", stream, "-", "+" }, { "XTRIM", stream, "MAXLEN", "1" }, { "XADD", stream, "*", "name", "value" },
}
for _, command in ipairs(redis.acl_check_cmd and commands or {}) do
  if not redis.acl_check_cmd(unpack(command)) then return command[1] end
end
redis.call("XLEN", KEYS[1])
return false`;

/**
 * Asks Redis whether events can be added to the stream, by TLS and login as the forwarder uses them. Changes nothing.
 * Null: nothing stands in the way.
 */
export async function checkRedisStream({
  target,
  stream,
  timeoutMs,
}: Pick<RedisStreamOptions, "target" | "stream"> & { readonly timeoutMs: number }): Promise<RedisStreamProblem | null> {
  let connection: RedisConnection | undefined;
  try {
    connection = await connectRedis(target, { onError: () => undefined, onInvalidate: () => undefined });
    const answer = connection.send(stream, ["EVAL", checkScript, "1", stream]);
    const refused = await deadlineOf(timeoutMs, answer, () => new Error("Redis did not answer in time"));
    if (typeof refused !== "string") return null;
    return { kind: "rights", reason: `the user may not use ${refused} with the key ${stream}` };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { kind: problemKind(reason), reason };
  } finally {
    connection?.close();
  }
}

function problemKind(reason: string): RedisStreamProblem["kind"] {
  if (/WRONGPASS|NOAUTH|invalid password/i.test(reason)) return "login";
  if (reason.includes("NOPERM")) return "rights";
  if (reason.includes("WRONGTYPE")) return "key";
  return /certificate|ssl|tls|self-signed/i.test(reason) ? "tls" : "unreachable";
}

/** The number of names and values, then these. */
function fieldsOf(event: Envelope): readonly string[] {
  const fields = Object.entries(cloudEventAttributes(event)).flat();
  return [String(fields.length + 2), ...fields, "data", JSON.stringify(event.data)];
}
