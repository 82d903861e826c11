import type { ServerResponse } from "node:http";
import type { ApiFormat, ClientStream } from "./formats/api-format.ts";
import type { AppError } from "../errors.ts";
import type { Clock } from "../lib/clock.ts";
import type { Waiting } from "../limits/concurrency.ts";
import type { Caller } from "../providers/failover.ts";
import type { ReaderTimes } from "../providers/provider.ts";

/** The part of a fastify reply that the gateway needs: the raw response and hijack(). */
export interface RawReply {
  /** After this the framework no longer writes to `raw`. */
  hijack(): unknown;
  readonly raw: ServerResponse;
}

/** Why a response ends before its provider has ended it. */
export type DisconnectReason = "client_gone" | "reader_stalled" | "shutdown";

/** Supplies the headers of a response; called once, as late as possible. */
export interface HeaderSource {
  /** @param to names and values in turn */
  addHeaders(to: string[]): void;
}

/** Notified when a slow client has caught up. */
export interface DrainListener {
  onDrain(): void;
}

/** What a waiting client is told. */
interface Notice {
  readonly headers: HeaderSource;
  readonly stream: ClientStream;
  readonly waiting: () => Waiting;
  /** The place that it was told last. */
  place: number;
}

/** Up to this size a chunk is copied into one buffer, which then comes out of Node's pool. */
const smallBytes = 2048;

/** Without this nginx holds events back until its buffer is full. */
const unbuffered = ["x-accel-buffering", "no"];
/** Names and values in turn, as Node accepts them: merging objects would cost microseconds. */
const streamHeaders = ["content-type", "text/event-stream; charset=utf-8", "cache-control", "no-cache", ...unbuffered];
const jsonHeaders = ["content-type", "application/json; charset=utf-8"];
/** White space before JSON is ignored. */
const blankLine = Buffer.from("\n");

/**
 * Writes a response to the client. Sends the headers as late as possible, keeps the connection alive, and notices when
 * the client disconnects or stops reading.
 */
export class ResponseWriter implements Caller {
  onGone: (() => void) | undefined;
  /** Why the client is no longer served; null while it is. */
  disconnectReason: DisconnectReason | null = null;
  /** Whether the 200 and its headers are sent: from then on an error can only be reported in the body. */
  opened = false;
  /** Whether an event with an `id` was sent. Set by the code that writes the events. */
  hasIds = false;
  /** The provider's own last event, which ends a complete stream. Set by the code that writes the events. */
  ending: Buffer | null = null;
  readonly traceId: string;
  readonly #reply: RawReply;
  readonly #raw: ServerResponse;
  readonly #errorBody: ApiFormat["errorBody"];
  /** null if the response is one JSON. */
  #stream: ClientStream | null = null;
  readonly #clock: Clock;
  /** The proxy's own times, used while no provider has the request. */
  readonly #ownTimes: ReaderTimes;
  #drainListener: DrainListener | null = null;
  #stallTimer: NodeJS.Timeout | undefined;
  #heartbeatTimer: NodeJS.Timeout | undefined;
  #times: ReaderTimes;
  #headers: HeaderSource | null = null;
  #notice: Notice | null = null;
  #noticeTimer: NodeJS.Timeout | undefined;
  #lastWriteAt = 0;
  /** Whether the body is chunked; it is not for HTTP/1.0 clients. */
  #chunked = false;

  /** @param times used while no provider has the request */
  constructor(
    reply: RawReply,
    traceId: string,
    { errorBody }: Pick<ApiFormat, "errorBody">,
    times: ReaderTimes,
    clock: Clock,
  ) {
    this.#reply = reply;
    this.#raw = reply.raw;
    this.traceId = traceId;
    this.#errorBody = errorBody;
    this.#ownTimes = times;
    this.#times = times;
    this.#clock = clock;
    const onClose = (): void => {
      this.#onClose();
    };
    this.#raw.once("close", onClose);
    if (this.#raw.socket === null) this.#watchSocket(onClose);
    if (this.#raw.destroyed) this.disconnectReason = "client_gone";
  }

  /** A response that waits for others on its connection has no socket yet, and does not hear of the connection's end. */
  #watchSocket(onClose: () => void): void {
    const { socket } = this.#raw.req;
    socket.once("close", onClose);
    this.#raw.once("socket", () => {
      socket.off("close", onClose);
    });
  }

  get gone(): boolean {
    return this.disconnectReason !== null;
  }

  /** Ends the response from our side and notifies the stage that is waiting. */
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
   * From now on a heartbeat is sent after each heartbeat interval without data, the first one together with the 200.
   * @param stream null if one JSON will follow
   */
  startHeartbeat(headers: HeaderSource, stream: ClientStream | null): void {
    // Without chunked coding a client could not tell a truncated response from a complete one.
    if (stream === null && this.#raw.req.httpVersion === "1.0") return;
    this.#stream = stream;
    this.#headers = headers;
    this.#lastWriteAt = this.#clock.monotonic();
    this.#scheduleHeartbeat();
  }

  /**
   * From `afterMs` on a client that waits for a stream is told its place in the line by comments, which begin with the
   * 200, until stopNotice is called. Comments have no meaning to SDKs; people and logs see them.
   * @param waiting read at each comment
   */
  startNotice(headers: HeaderSource, stream: ClientStream, afterMs: number, waiting: () => Waiting): void {
    this.#notice = { headers, stream, waiting, place: 0 };
    this.#noticeTimer = setTimeout(notify, afterMs, this).unref();
  }

  stopNotice(): void {
    clearTimeout(this.#noticeTimer);
    this.#notice = null;
  }

  notifyOfPlace(): void {
    const notice = this.#notice;
    if (notice === null || this.gone) return;
    if (!this.opened) {
      this.startHeartbeat(notice.headers, notice.stream);
      this.open(notice.headers);
    }
    const { place, expectedMs } = notice.waiting();
    // A client that is behind has enough to read.
    if (place !== notice.place && !this.#raw.writableNeedDrain) {
      notice.place = place;
      this.#write(placeComment(place, expectedMs));
      this.#lastWriteAt = this.#clock.monotonic();
    }
    this.#noticeTimer = setTimeout(notify, noticeEveryMs, this).unref();
  }

  /** Writes the 200 and the headers, which are sent together with the next write. */
  open(headers: HeaderSource): void {
    if (this.opened || this.gone) return;
    this.#writeHead(this.#stream === null ? [...jsonHeaders, ...unbuffered] : streamHeaders.slice(), headers);
    // All chunks are framed here: Node 26 keeps those that it frames until the end of the turn, behind later ones.
    this.#chunked = this.#raw.chunkedEncoding;
    this.#raw.chunkedEncoding = false;
  }

  /**
   * Writes whole events. False if the client is behind: `listener.onDrain` is called once it has caught up, and if that
   * takes too long the client counts as gone.
   */
  write(bytes: Buffer, listener: DrainListener): boolean {
    if (this.gone) return true;
    this.#lastWriteAt = this.#clock.monotonic();
    this.#stream?.onWrite?.(bytes);
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

  /** Notes what an event says that is about to be written. */
  noteEvent(parsed: unknown): void {
    this.#stream?.onEvent?.(parsed);
  }

  /**
   * Ends a stream with its normal ending, or with an error event, since a broken response must not look complete. If
   * the client expects one JSON after a heartbeat, the error is that JSON; without an error there is nothing to send,
   * so the connection is closed.
   */
  finish(error: AppError | null): void {
    this.#stopTimers();
    const stream = this.#stream;
    if (
      this.disconnectReason === "client_gone" ||
      this.disconnectReason === "reader_stalled" ||
      (stream === null && error === null)
    ) {
      this.abandon();
      return;
    }
    if (stream !== null)
      this.#end(error === null ? (this.ending ?? stream.ending) : stream.errorEvent(error, this.traceId));
    else if (error !== null) this.#end(JSON.stringify(this.#errorBody(error, this.traceId)));
  }

  /** Sends one JSON and ends. */
  sendJson(body: string | Buffer, headers: HeaderSource): void {
    this.#stopTimers();
    if (this.gone) {
      this.abandon();
      return;
    }
    if (!this.opened) this.#writeHead([...jsonHeaders, "content-length", String(Buffer.byteLength(body))], headers);
    this.#end(body);
  }

  /** Closes the connection. */
  abandon(): void {
    this.#stopTimers();
    if (!this.opened) this.#reply.hijack();
    this.#raw.destroy();
  }

  /** Stops the timers, because the framework will send the response instead. */
  release(): void {
    this.#stopTimers();
  }

  heartbeatIfDue(): void {
    if (this.gone) return;
    if (this.#untilHeartbeat() <= 0) {
      if (this.#headers !== null) this.open(this.#headers);
      // A client that is behind still has bytes to read: it needs no heartbeat.
      if (!this.#raw.writableNeedDrain) this.#write(this.#stream?.heartbeat(this.hasIds) ?? blankLine);
      this.#lastWriteAt = this.#clock.monotonic();
    }
    this.#scheduleHeartbeat();
  }

  #scheduleHeartbeat(): void {
    clearTimeout(this.#heartbeatTimer);
    this.#heartbeatTimer = setTimeout(heartbeat, Math.max(0, Math.ceil(this.#untilHeartbeat())), this).unref();
  }

  /** ms until a heartbeat is due. */
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
    if (!this.#chunked) return this.#raw.write(bytes);
    if (bytes.length <= smallBytes) return this.#raw.write(httpChunk(bytes));
    // Node sends the three together at the end of the turn.
    this.#raw.write(`${bytes.length.toString(16)}\r\n`, "latin1");
    this.#raw.write(bytes);
    return this.#raw.write("\r\n", "latin1");
  }

  #end(body: Buffer | string): void {
    if (this.#chunked) {
      if (body.length > 0) this.#write(typeof body === "string" ? Buffer.from(body) : body);
      this.#raw.end(lastChunk, "latin1");
    } else this.#raw.end(body);
    // Nothing waits for the client any more, but its connection must not stay open for ever. Node's own timeout tells a
    // slow reader from one that has stopped, and closes the connection.
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
    this.stopNotice();
    clearTimeout(this.#stallTimer);
    clearTimeout(this.#heartbeatTimer);
    this.#heartbeatTimer = undefined;
  }
}

function heartbeat(client: ResponseWriter): void {
  client.heartbeatIfDue();
}

function notify(client: ResponseWriter): void {
  client.notifyOfPlace();
}

/** How often a client may be told its place, in ms. */
const noticeEveryMs = 1000;

function placeComment(place: number, expectedMs: number | null): Buffer {
  const wait = expectedMs === null ? "" : ` wait=${Math.max(1, Math.ceil(expectedMs / 1000))}s`;
  return Buffer.from(`: queued place=${place}${wait}\n\n`);
}

function stall(client: ResponseWriter): void {
  client.disconnect("reader_stalled");
}

/** A client that disconnects during a write is not an error: 'close' reports the same and is handled. */
function ignore(): void {
  // nothing to do
}

/** Ends a body in the chunked transfer coding. */
const lastChunk = "0\r\n\r\n";
const CR = 0x0d;
const LF = 0x0a;

/**
 * Frames `bytes`, at least one, as a chunk of the chunked transfer coding (RFC 9112, section 7.1). To write the same in
 * pieces costs more than this copy if the chunk is as small as one token.
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
