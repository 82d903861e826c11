import type { ServerResponse } from "node:http";
import type { ApiFormat } from "./formats/api-format.ts";
import type { AppError } from "../errors.ts";
import type { Clock } from "../lib/clock.ts";
import type { Caller } from "../providers/failover.ts";
import type { ReaderTimes } from "../providers/provider.ts";

/** The part of a reply that the chat needs: the raw response, and the right to it. */
export interface RawReply {
  /** After this the framework keeps its hands off `raw`. */
  hijack(): unknown;
  readonly raw: ServerResponse;
}

/** Why an answer ends that its provider hasn't ended. */
export type DisconnectReason = "client_gone" | "reader_stalled" | "shutdown";

/** Where the headers of an answer come from; asked once, at the last moment. */
export interface HeaderSource {
  /** @param to names and values in turn */
  addHeaders(to: string[]): void;
}

/** Who is told when a slow client has caught up. */
export interface DrainListener {
  onDrain(): void;
}

/** Up to this size a chunk is copied into one piece; it then comes out of Node's pool of buffers. */
const smallBytes = 2048;

/** nginx would otherwise hold back what comes until its buffer is full. */
const unbuffered = ["x-accel-buffering", "no"];
/** Names and values in turn, as Node takes them: objects put together of others cost it microseconds. */
const streamHeaders = [
  ...["content-type", "text/event-stream; charset=utf-8"],
  ...["cache-control", "no-cache"],
  ...unbuffered,
];
const jsonHeaders = ["content-type", "application/json; charset=utf-8"];
/** White space before JSON means nothing. */
const blankLine = Buffer.from("\n");

/** The client's end of a chat: opens late, writes events, keeps the line alive, notices who left or stopped reading. */
export class ResponseWriter implements Caller {
  onGone: (() => void) | undefined;
  /** Why nobody will read on; null while somebody does. */
  disconnectReason: DisconnectReason | null = null;
  /** Whether the 200 and its headers are out: from then on a failure can only be told in the body. */
  opened = false;
  /** Whether it has got an event with an `id`. Set by whoever writes the events. */
  hasIds = false;
  readonly traceId: string;
  readonly #reply: RawReply;
  readonly #raw: ServerResponse;
  readonly #format: ApiFormat;
  readonly #clock: Clock;
  /** The proxy's own times, for while no provider is asked. */
  readonly #ownTimes: ReaderTimes;
  #drainListener: DrainListener | null = null;
  #stallTimer: NodeJS.Timeout | undefined;
  #heartbeatTimer: NodeJS.Timeout | undefined;
  #times: ReaderTimes;
  #headers: HeaderSource | null = null;
  #lastWriteAt = 0;
  /** Whether what goes out is one JSON rather than events. */
  #json = false;
  /** Whether the stream is in chunks; a client of HTTP/1.0 gets none. */
  #chunked = false;

  /** @param times that hold while no provider is asked */
  constructor(reply: RawReply, traceId: string, format: ApiFormat, times: ReaderTimes, clock: Clock) {
    this.#reply = reply;
    this.#raw = reply.raw;
    this.traceId = traceId;
    this.#format = format;
    this.#ownTimes = times;
    this.#times = times;
    this.#clock = clock;
    this.#raw.once("close", () => {
      this.#onClose();
    });
    if (this.#raw.destroyed) this.disconnectReason = "client_gone";
  }

  get gone(): boolean {
    return this.disconnectReason !== null;
  }

  /** Ends the answer from our side. The stage that is waiting hears of it at once. */
  disconnect(reason: DisconnectReason): void {
    if (this.disconnectReason !== null) return;
    this.disconnectReason = reason;
    this.onGone?.();
  }

  useTimes(times: ReaderTimes | null): void {
    const before = this.#times.heartbeat;
    this.#times = times ?? this.#ownTimes;
    if (this.#heartbeatTimer !== undefined && this.#times.heartbeat !== before) this.#scheduleHeartbeat();
  }

  /**
   * From now on, a sign of life goes out after each such time of silence, the first one behind a 200.
   * @param json whether one JSON will follow; else events
   */
  startHeartbeat(headers: HeaderSource, json = false): void {
    // Without chunks nobody could tell an answer that was cut off from a whole one.
    if (json && this.#raw.req.httpVersion === "1.0") return;
    this.#json = json;
    this.#headers = headers;
    this.#lastWriteAt = this.#clock.monotonic();
    this.#scheduleHeartbeat();
  }

  /** Sends 200 and the headers of what is to follow, together with what is written next. */
  open(headers: HeaderSource): void {
    if (this.opened || this.gone) return;
    this.#writeHead(this.#json ? [...jsonHeaders, ...unbuffered] : streamHeaders.slice(), headers);
    this.#chunked = this.#raw.chunkedEncoding;
  }

  /**
   * Writes whole events. False where the client is behind: then `listener.onDrain` is called once it has caught up,
   * and if it takes too long the client counts as gone.
   */
  write(bytes: Buffer, listener: DrainListener): boolean {
    if (this.gone) return true;
    this.#lastWriteAt = this.#clock.monotonic();
    if (this.#write(bytes)) return true;
    if (this.#drainListener === null) {
      this.#drainListener = listener;
      this.#raw.once("drain", () => {
        this.#onDrain();
      });
      this.#stallTimer = setTimeout(stall, this.#times.stalledReader, this).unref();
    }
    return false;
  }

  /**
   * Ends a stream: with its ending, or with an error event instead, for a broken answer must not look whole. Of one JSON
   * behind a heartbeat the error is that JSON; without one there is none to send, and the connection breaks off.
   */
  finish(error: AppError | null): void {
    this.#stopTimers();
    if (
      this.disconnectReason === "client_gone" ||
      this.disconnectReason === "reader_stalled" ||
      (this.#json && error === null)
    ) {
      this.abandon();
      return;
    }
    this.#raw.chunkedEncoding = this.#chunked;
    if (error === null) this.#end(this.#format.ending);
    else if (this.#json) this.#end(JSON.stringify(this.#format.errorBody(error, this.traceId)));
    else this.#end(this.#format.errorEvent(error, this.traceId));
  }

  /** Sends one JSON and ends. */
  sendJson(body: string | Buffer, headers: HeaderSource): void {
    this.#stopTimers();
    if (this.gone) {
      this.abandon();
      return;
    }
    if (this.opened) this.#raw.chunkedEncoding = this.#chunked;
    else this.#writeHead([...jsonHeaders, "content-length", String(Buffer.byteLength(body))], headers);
    this.#end(body);
  }

  /** Gives the connection up. */
  abandon(): void {
    this.#stopTimers();
    if (!this.opened) this.#reply.hijack();
    this.#raw.destroy();
  }

  /** Stops the timers where the framework is going to answer instead. */
  release(): void {
    this.#stopTimers();
  }

  heartbeatIfDue(): void {
    if (this.gone) return;
    if (this.#untilHeartbeat() <= 0) {
      if (this.#headers !== null) this.open(this.#headers);
      // A client that is behind has bytes on the way: it needs no sign of life.
      if (!this.#raw.writableNeedDrain) this.#write(this.#heartbeatBytes());
      this.#lastWriteAt = this.#clock.monotonic();
    }
    this.#scheduleHeartbeat();
  }

  #heartbeatBytes(): Buffer {
    if (this.#json) return blankLine;
    return this.hasIds ? this.#format.heartbeatAfterIds : this.#format.heartbeat;
  }

  #scheduleHeartbeat(): void {
    clearTimeout(this.#heartbeatTimer);
    this.#heartbeatTimer = setTimeout(heartbeat, Math.max(0, Math.ceil(this.#untilHeartbeat())), this).unref();
  }

  /** ms until a sign of life is due. */
  #untilHeartbeat(): number {
    return this.#lastWriteAt + this.#times.heartbeat - this.#clock.monotonic();
  }

  #writeHead(head: string[], more: HeaderSource): void {
    this.opened = true;
    this.#reply.hijack();
    this.#raw.on("error", ignore);
    head.push("x-request-id", this.traceId);
    more.addHeaders(head);
    this.#raw.writeHead(200, head);
  }

  #write(bytes: Buffer): boolean {
    const small = this.#chunked && bytes.length <= smallBytes;
    // Who makes the chunk: Node, or this file.
    this.#raw.chunkedEncoding = this.#chunked && !small;
    return this.#raw.write(small ? httpChunk(bytes) : bytes);
  }

  #end(bytes: Buffer | string): void {
    this.#raw.end(bytes);
    // Nobody waits for the client any more, but its connection must not stay for ever either. Node's own timeout knows
    // a slow reader from one that has stopped, and closes the connection.
    if (this.#raw.writableLength > 0) this.#raw.setTimeout(this.#times.stalledReader);
  }

  #onDrain(): void {
    clearTimeout(this.#stallTimer);
    const listener = this.#drainListener;
    this.#drainListener = null;
    listener?.onDrain();
  }

  #onClose(): void {
    this.#stopTimers();
    if (!this.#raw.writableFinished) this.disconnect("client_gone");
  }

  #stopTimers(): void {
    clearTimeout(this.#stallTimer);
    clearTimeout(this.#heartbeatTimer);
    this.#heartbeatTimer = undefined;
  }
}

function heartbeat(client: ResponseWriter): void {
  client.heartbeatIfDue();
}

function stall(client: ResponseWriter): void {
  client.disconnect("reader_stalled");
}

/** A client that leaves in mid-write is no error: 'close' tells the same, and is heeded. */
function ignore(): void {
  // nothing to do
}

const CR = 0x0d;
const LF = 0x0a;

/**
 * `bytes`, of which there must be some, as one chunk of the chunked transfer coding (RFC 9112, section 7.1). Node makes
 * the same out of four pieces, which costs more than this copy where a chunk is as small as one token.
 */
function httpChunk(bytes: Buffer): Buffer {
  const size = bytes.length.toString(16);
  const start = size.length + 2;
  const end = start + bytes.length;
  const chunk = Buffer.allocUnsafe(end + 2);
  chunk.write(size, 0, "latin1");
  chunk[start - 2] = CR;
  chunk[start - 1] = LF;
  bytes.copy(chunk, start);
  chunk[end] = CR;
  chunk[end + 1] = LF;
  return chunk;
}
