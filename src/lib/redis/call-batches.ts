import { ErrorReply } from "@redis/client";
import type { FunctionLibrary } from "./library.ts";
import { CallNotNeededError, type CallOptions, RedisReplyError, replyList, type RedisReply } from "./redis.ts";

/** Puts calls of functions that are made together into one command: each costs both sides a round of their own. */
export interface CallBatches {
  /** As Redis.call. */
  call(
    name: string,
    keys: readonly string[],
    args: readonly (string | number)[],
    isNeeded?: CallOptions["isNeeded"],
  ): Promise<RedisReply>;
  /** Sends what waits to be sent. Otherwise that happens once this turn of the event loop is over. */
  flush(): void;
  /** Calls that have no answer yet. */
  count(): number;
}

interface Call {
  readonly name: string;
  readonly keys: readonly string[];
  readonly args: readonly (string | number)[];
  readonly isNeeded: CallOptions["isNeeded"];
  readonly resolve: (reply: RedisReply) => void;
  readonly reject: (error: unknown) => void;
}

/** Calls of one command, in their order. */
interface Batch {
  readonly slot: string;
  readonly isTolerant: boolean;
  readonly calls: Call[];
}

/** One for all: nobody reads where it came from, and to find that out costs as much as to send a call. */
const notNeeded = new CallNotNeededError("it was not needed any more");
/** Calls in one command, at the most: Redis does nothing else meanwhile. */
const most = 32;

/**
 * Calls keep their order in each slot. Those that Redis refuses when its memory is full are not put together with those
 * that it doesn't. Each has an answer of its own, also where another one of its batch fails.
 *
 * @param slotOf what all keys of one command must have in common
 * @param send sends a command to the server of a key, and repeats it while its answer is lost
 */
export function createCallBatches(
  library: FunctionLibrary,
  slotOf: (key: string) => string,
  send: (key: string, command: readonly string[]) => Promise<RedisReply>,
): CallBatches {
  let waiting: Batch[] = [];
  /** The batch of each slot that takes further calls. */
  let last = new Map<string, Batch>();
  let open = 0;

  function flush(): void {
    const batches = waiting;
    waiting = [];
    // A new one, since V8 links the table of a map that is cleared to the one after it: once one of them is old, none is
    // freed before the next full collection, nor the calls in them.
    last = new Map();
    for (const { calls } of batches)
      sendBatch(calls.every(({ isNeeded }) => isNeeded === undefined) ? calls : needed(calls));
  }

  function needed(calls: readonly Call[]): readonly Call[] {
    return calls.filter(({ isNeeded, reject }) => {
      if (isNeeded?.() !== false) return true;
      open--;
      reject(notNeeded);
      return false;
    });
  }

  function sendBatch(calls: readonly Call[]): void {
    const [first, ...others] = calls;
    if (first === undefined) return;
    if (others.length === 0) {
      const { name, keys, args, resolve, reject } = first;
      const command = ["FCALL", library.functionName(name), String(keys.length), ...keys];
      for (const arg of args) command.push(String(arg));
      send(keys[0] ?? "", command).then(
        (reply) => {
          open--;
          resolve(reply);
        },
        (error: unknown) => {
          open--;
          reject(error);
        },
      );
      return;
    }
    const command = ["FCALL", library.functionName("batch"), ""];
    for (const { keys } of calls) for (const key of keys) command.push(key);
    command[2] = String(command.length - 3);
    for (const { name, keys: own, args } of calls) {
      command.push(name, String(own.length), String(args.length));
      for (const arg of args) command.push(String(arg));
    }
    if (library.isTolerant(first.name)) command[1] = library.functionName("batch_tolerant");
    send(first.keys[0] ?? "", command).then(
      (reply) => {
        open -= calls.length;
        const replies = replyList(reply);
        for (let index = 0; index < replies.length; index++) settle(calls[index], replies[index]);
      },
      (error: unknown) => {
        open -= calls.length;
        for (const { reject } of calls) reject(error);
      },
    );
  }

  return {
    call: (name, keys, args, isNeeded) =>
      new Promise((resolve, reject) => {
        if (waiting.length === 0) setImmediate(flush);
        open++;
        const slot = slotOf(keys[0] ?? "");
        const isTolerant = library.isTolerant(name);
        let batch = last.get(slot);
        if (batch?.isTolerant !== isTolerant || batch.calls.length >= most) {
          batch = { slot, isTolerant, calls: [] };
          waiting.push(batch);
          last.set(slot, batch);
        }
        batch.calls.push({ name, keys, args, isNeeded, resolve, reject });
      }),
    flush,
    count: () => open,
  };
}

function settle(call: Call | undefined, reply: unknown): void {
  if (call === undefined) return;
  if (reply instanceof ErrorReply) call.reject(new RedisReplyError(reply.message, { cause: reply }));
  else call.resolve(reply as RedisReply);
}
