/** A reply. Amounts come as text: a number would be rounded beyond 2^53. */
export type RedisReply = string | number | boolean | null | readonly RedisReply[];

/** Redis could not be asked, or its answer was lost: the call may have run, or not. */
export class RedisUnavailableError extends Error {
  override readonly name = "RedisUnavailableError";
}

/** Redis answered with an error. */
export class RedisReplyError extends Error {
  override readonly name = "RedisReplyError";
}

/** The call was not sent, since it was not needed any more. */
export class CallNotNeededError extends Error {
  override readonly name = "CallNotNeededError";
}

/** What is known of the connection. */
interface RedisStatus {
  readonly connected: boolean;
  /** Calls that have no answer yet. */
  readonly inFlight: number;
  /** Calls that ended without an answer, or were refused since too many were in flight. */
  readonly failed: number;
  /** Calls that were repeated after their answer was lost. */
  readonly repeated: number;
}

export interface CallOptions {
  /** How many replicas must have what was written up to this call; fewer are an unknown outcome. Default: 0. */
  readonly replicas?: number | undefined;
  /**
   * Asked right before the call is sent, at the end of the turn of the event loop in which it was made. Where it says
   * no the call is not sent, and rejects with CallNotNeededError. Not beside `replicas`.
   */
  readonly isNeeded?: (() => boolean) | undefined;
}

/** The shared connection. All its verbs are safe to repeat: see `call`. */
export interface Redis {
  /**
   * Calls a function of the library. It must give the same answer when it is called again with the same arguments,
   * without taking effect twice: after a lost answer the call is repeated until `timeoutMs` have passed.
   *
   * @param name without the library's prefix
   * @param keys whole keys, as `keyIn` makes them: at least one, all of the same slot
   * @throws RedisUnavailableError, RedisReplyError, CallNotNeededError
   */
  call(
    name: string,
    keys: readonly [string, ...string[]],
    args: readonly (string | number)[],
    options?: CallOptions,
  ): Promise<RedisReply>;
  /** Sends a plain command that is safe to repeat, to the server of a key. Throws as `call`. */
  send(key: string, command: readonly string[]): Promise<RedisReply>;
  /** Sends a command to every primary; an error of one is in its place. Throws RedisUnavailableError. */
  onEveryServer(command: readonly string[]): Promise<readonly (RedisReply | Error)[]>;
  /** The slot tags: every key is in one of them. */
  readonly tags: readonly string[];
  /** The tag of a name: that of a user, a group's account, an API key's hash. The same name has the same tag for ever. */
  tagOf(name: string): string;
  /** A key in the slot of a tag: `PREFIX:{TAG}:KIND[:NAME]`. */
  keyIn(tag: string, kind: string, name?: string): string;
  /**
   * Calls the listener with each key of a kind whose value may have changed, and with null where changes may have been
   * missed. Best effort: what must not be stale for longer has an age of its own.
   */
  onChange(kind: string, listener: (key: string | null) => void): void;
  status(): RedisStatus;
  /** While Redis cannot be asked, ms since its last answer; else 0. */
  awayMs(): number;
  /** Ends at once; calls in flight are rejected. */
  close(): Promise<void>;
}

/** Narrows a reply. */
export function replyList(reply: RedisReply): readonly RedisReply[] {
  if (!Array.isArray(reply)) throw new RedisReplyError("expected a list");
  return reply as readonly RedisReply[];
}

/** Narrows a reply; null is "". */
export function replyText(reply: RedisReply | undefined): string {
  if (typeof reply === "string") return reply;
  if (typeof reply === "number") return String(reply);
  if (reply === null || reply === undefined) return "";
  throw new RedisReplyError("expected a text");
}

/** A reply that is an integer, as number or text. Beyond 2^53 it is rounded. */
export function replyNumber(reply: RedisReply | undefined): number {
  const number = typeof reply === "number" ? reply : typeof reply === "string" && reply !== "" ? Number(reply) : NaN;
  if (Number.isNaN(number)) throw new RedisReplyError("expected a number");
  return number;
}
