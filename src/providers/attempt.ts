import type { Dispatcher } from "undici";
import type { Clock } from "../lib/clock.ts";
import { Backpressure } from "./backpressure.ts";
import { Deadlines } from "./deadlines.ts";
import { kindOfConnectionError, UpstreamError, type UpstreamErrorKind, type UpstreamStage } from "./upstream-error.ts";
import type { Provider, UpstreamRequest } from "./provider.ts";
import type { Pass } from "./provider-health.ts";
import type { ResponseSink, EventRole, ResponseReader } from "./stream/response-reader.ts";
import { ResponseBody, type BodyListener } from "./stream/response-body.ts";

/** How long an error's body may take: its status is known, and whoever waits for the words waits in vain. */
const errorBodyMs = 5000;
/** How long a connection may take to close properly after [DONE] before it is cut, in ms. */
const lingerMs = 1000;

/** What becomes of an answer that cannot be sent. An error that the provider tells of is its own. */
const interruptions: ReadonlySet<UpstreamErrorKind> = new Set<UpstreamErrorKind>(["timeout", "network", "truncated"]);

type Controller = Dispatcher.DispatchController;
type Headers = Parameters<NonNullable<Dispatcher.DispatchHandler["onResponseStart"]>>[2];

/**
 * One request to one provider, over one connection. `open()` ends with the first data event in hand, or with a
 * fault: until then nothing is owed and another provider may be asked. Afterwards `pipe()` hands the events to a sink,
 * which may pause, resume and cancel. Whatever happens, the connection is freed and the sink's onEnd called once.
 */
export class Attempt implements Dispatcher.DispatchHandler, BodyListener {
  readonly provider: Provider;
  /** ms from open() to the first data event; null until then. */
  firstEventMs: number | null = null;
  /** Whether the answer broke off while, or because, its reader was behind. */
  brokenByReader = false;
  /** By which the provider's circuits know us. */
  readonly #pass: Pass;
  readonly #request: UpstreamRequest;
  /** The key that was sent. */
  #key = "";
  readonly #clock: Clock;
  readonly #deadlines: Deadlines;
  readonly #body: ResponseBody;
  #controller: Controller | null = null;
  #sink: ResponseSink | null = null;
  /** Events that came before the sink did; a handful, for upstream is paused meanwhile. */
  #held: Parameters<ResponseSink["onEvent"]>[] = [];
  /** The sink that was piped to last. */
  #reader: ResponseSink | null = null;
  /** Whether it has called pause(), and not resume(). */
  #readerBehind = false;
  /** Whether nothing is read from the provider, because nobody takes it now. */
  #isPaused = false;
  readonly #backpressure = new Backpressure();
  #resolve: (() => void) | null = null;
  #reject: ((reason: Error) => void) | null = null;
  /** As the provider knows it. */
  #model = "";
  #status = 0;
  #sawEvent = false;
  /** As the reader said last. */
  #graceMs: number | null = null;
  #linger: NodeJS.Timeout | undefined;
  /** The provider has nothing more to send. */
  #closed = false;
  /** Set once the attempt is over for everybody; null inside means a complete answer. */
  #ended: { readonly error: UpstreamError | null } | null = null;

  /** Made once the provider's health has let it in with `pass`; must be opened or cancelled. */
  constructor(provider: Provider, pass: Pass, request: UpstreamRequest, clock: Clock) {
    this.provider = provider;
    this.#pass = pass;
    this.#request = request;
    this.#clock = clock;
    this.#body = new ResponseBody(request, provider, this, () => clock.now());
    this.#deadlines = new Deadlines(provider.timeouts, clock, this);
    provider.health.sent();
  }

  /** What has been read of the answer. */
  get reader(): ResponseReader {
    return this.#body.reader;
  }

  /** "connect" only where nothing was sent, for want of a connection: what breaks later may be due to the request. */
  get stage(): UpstreamStage {
    if (this.#controller === null) return "connect";
    if (this.#status === 0) return "first_byte";
    return this.firstEventMs === null ? "first_event" : "streaming";
  }

  /**
   * Asks. Resolves when the first data event that is not an error has arrived.
   * Rejects with an UpstreamError, or with what cancel() was given.
   * @param model as the provider knows it
   * @param since monotonic ms from which the total time counts
   * @param streamOptions whether `stream_options` may be sent
   */
  open(model: string, since: number, streamOptions = true): Promise<void> {
    const { origin, endpoints, dispatcher, kind } = this.provider;
    const endpoint = endpoints[this.#request.api];
    if (endpoint === null) throw new Error(`${this.provider.name} has no API for ${this.#request.api}`);
    const body = this.#request.bodyFor(model, { streamOptions, developerRole: kind.developerRole });
    this.#model = model;
    this.#key = this.provider.secret;
    const opened = new Promise<void>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#deadlines.start(since);
    dispatcher.dispatch({ origin, path: endpoint.path, method: "POST", headers: endpoint.headers, body }, this);
    return opened;
  }

  /** Whether the provider has been sent the request, and has not refused it. */
  get isSent(): boolean {
    return this.#controller !== null && this.#status < 300;
  }

  /** ms from the first data event to now, or null where none came. Ask when the answer is over. */
  generationMs(): number | null {
    return this.firstEventMs === null ? null : this.#clock.monotonic() - this.#deadlines.startedAt - this.firstEventMs;
  }

  /** Hands all events, from the first or from where unpipe() was called on, to `sink`. */
  pipe(sink: ResponseSink): void {
    // Another reader is not behind.
    if (sink !== this.#reader) this.#catchUp();
    this.#sink = this.#reader = sink;
    const held = this.#held;
    this.#held = [];
    for (const [index, event] of held.entries()) {
      sink.onEvent(...event);
      if (this.#sink === sink) continue;
      this.#held = held.slice(index + 1);
      return;
    }
    if (held.length > 0) sink.onBatch();
    if (this.#ended !== null) sink.onEnd(this.#ended.error);
    else if (!this.#readerBehind) this.#resumeReading();
  }

  /** Keeps what comes from now on until pipe() is called again, and reads no more from the provider. */
  unpipe(): void {
    this.#sink = null;
    this.#pauseReading();
  }

  /** Stops reading from the provider, because who reads the answer is behind; its times stand still. */
  pause(): void {
    this.#readerBehind = true;
    this.#backpressure.hold(this.#clock.monotonic());
    this.#pauseReading();
  }

  resume(): void {
    this.#catchUp();
    if (this.#sink !== null) this.#resumeReading();
  }

  /**
   * Ends it from our side and closes the connection; does nothing where it has ended.
   * @param cancelReason what a pending open() rejects with; absent where none is
   */
  cancel(cancelReason?: Error): void {
    if (this.#ended !== null) return;
    // Not before it is needed: an error with its stack costs as much as a JSON.parse.
    const reason = cancelReason ?? new Error("the chat is over");
    this.#ended = { error: null };
    this.provider.health.abandoned(this.#pass);
    this.#releaseResources();
    this.#sink = null;
    this.#controller?.abort(reason);
    this.#settleOpen(reason);
  }

  /** A deadline has passed. */
  onDeadline(stage: UpstreamStage): void {
    try {
      this.#body.stop(new UpstreamError({ kind: "timeout", stage: this.#controller === null ? "connect" : stage }));
    } catch (cause) {
      this.onException(cause);
    }
  }

  onGraceOver(): void {
    try {
      const cut = new UpstreamError({ kind: "timeout", stage: this.stage });
      const error = this.reader.end(cut);
      // What looked like the end of a JSON was none.
      if (error === cut) this.#graceMs = null;
      else this.onBodyEnd(error);
    } catch (cause) {
      this.onException(cause);
    }
  }

  // From here on undici calls, out of callbacks of the socket: what one of these threw would end the process.

  onRequestStart(controller: Controller): void {
    this.#controller = controller;
    if (this.#ended !== null) controller.abort(new Error("cancelled before it was sent"));
  }

  onResponseStart(_controller: Controller, status: number, headers: Headers): void {
    try {
      this.#start(status, headers);
    } catch (cause) {
      this.onException(cause);
    }
  }

  onResponseData(_controller: Controller, chunk: Buffer): void {
    try {
      // The parser hands nothing on where it goes on behind a pause. To pause then is to be paused at the end.
      if (chunk.length > 0) this.#take(chunk);
    } catch (cause) {
      this.onException(cause);
    }
  }

  onResponseEnd(): void {
    this.#closed = true;
    clearTimeout(this.#linger);
    try {
      this.#endBody();
    } catch (cause) {
      this.onException(cause);
    }
  }

  onResponseError(_controller: Controller, cause: Error): void {
    this.#closed = true;
    clearTimeout(this.#linger);
    try {
      this.#breakOff(cause);
    } catch (exception) {
      this.onException(exception);
    }
  }

  #start(status: number, headers: Headers): void {
    if (status < 200) return;
    this.#status = status;
    this.#deadlines.toStage("first_event");
    const error = this.#body.start(this.#model, status, headers);
    if (error !== null) this.#fail(error);
    else if (status !== 200) this.#deadlines.endWithin(errorBodyMs);
  }

  #take(chunk: Buffer): void {
    if (this.#ended !== null) return;
    if (this.#backpressure.isSettling) this.#backpressure.dataReceived(this.#clock.monotonic());
    if (!this.#body.push(chunk)) this.#controller?.pause();
  }

  onEvent(event: Buffer, start: number, end: number, textBytes: number, role: EventRole, parsed: unknown): void {
    this.#sawEvent = true;
    // Some servers put a finish_reason into every event: where there is more text, that was not the end.
    if (textBytes > 0) this.#graceMs = null;
    if (this.#sink !== null) {
      this.#sink.onEvent(event, start, end, textBytes, role, parsed);
      return;
    }
    this.#held.push([event, start, end, textBytes, role, parsed]);
    if (this.firstEventMs === null) {
      const now = this.#clock.monotonic();
      this.firstEventMs = now - this.#deadlines.startedAt;
      this.provider.health.responded(this.#pass, this.firstEventMs, now);
      this.#deadlines.toStage("streaming");
    }
  }

  onBatch(): void {
    // Once for all events of one read: they arrived together.
    if (this.#sawEvent) this.#deadlines.touch();
    this.#sawEvent = false;
    this.#sink?.onBatch();
    if (this.#ended !== null) return;
    const { reader } = this;
    if (reader.error !== null) this.#fail(reader.error);
    else if (reader.done) this.onBodyEnd(reader.end());
    else {
      const { graceMs } = reader;
      if (graceMs !== this.#graceMs) this.#deadlines.setGrace((this.#graceMs = graceMs));
      if (this.firstEventMs === null) return;
      this.#settleOpen(null);
      if (this.#sink === null) this.#pauseReading();
    }
  }

  onEnd(): void {
    // The reader never calls it: where an answer ends is decided here.
  }

  #endBody(): void {
    if (this.#ended === null) this.#body.end(null);
  }

  #breakOff(cause: Error): void {
    if (this.#ended !== null) return;
    const kind = kindOfConnectionError(cause);
    this.#body.end(new UpstreamError({ kind, stage: this.stage, cause }));
  }

  /** The answer is over, complete or not. */
  onBodyEnd(error: UpstreamError | null): void {
    if (this.#ended !== null) return;
    if (error !== null) {
      this.#fail(error);
      return;
    }
    this.#ended = { error };
    this.provider.health.completed();
    this.#releaseResources();
    this.#settleOpen(null);
    this.#sink?.onEnd(null);
    if (this.#closed) return;
    if (!this.reader.done) {
      this.#controller?.abort(new Error("the provider did not close after a complete answer"));
      return;
    }
    // After [DONE] only the end of the body is due, and nearly always it came in the same read, whose rest is looked at
    // before any microtask runs. A provider that keeps the connection open must not keep ours.
    queueMicrotask(() => {
      if (!this.#closed) this.#linger = setTimeout(abort, lingerMs, this.#controller).unref();
    });
  }

  #fail(error: UpstreamError): void {
    if (this.#ended !== null) return;
    const now = this.#clock.monotonic();
    this.#ended = { error };
    error.head = this.#body.head;
    this.brokenByReader = interruptions.has(error.facts.kind) && this.#backpressure.mayHaveBrokenResponse(now);
    error.isOutdated = error.facts.kind === "key_refused" && this.provider.hasReplaced(this.#key);
    if (this.brokenByReader || error.isOutdated) this.provider.health.abandoned(this.#pass);
    else this.provider.health.failed(this.#pass, error, now);
    this.#releaseResources();
    this.#controller?.abort(error);
    this.#settleOpen(error);
    this.#sink?.onEnd(error);
  }

  onReadable(): void {
    if (!this.#isPaused && !this.#closed && this.#ended === null) this.#controller?.resume();
  }

  /** An exception ends this answer and nothing else. */
  onException(cause: unknown): void {
    const stage = this.firstEventMs === null ? "first_event" : "streaming";
    const error = new UpstreamError({ kind: "invalid_response", stage, cause });
    try {
      this.#fail(error);
    } catch {
      // The sink threw once more. It has been told, and its client's connection is bounded by times of its own.
      this.#settleOpen(error);
    }
  }

  #catchUp(): void {
    this.#readerBehind = false;
    this.#backpressure.release(this.#clock.monotonic());
  }

  #pauseReading(): void {
    if (this.#controller === null || this.#isPaused || this.#ended !== null) return;
    this.#isPaused = true;
    this.#deadlines.hold();
    this.#body.pause();
    if (!this.#closed) this.#controller.pause();
  }

  #resumeReading(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#deadlines.release();
    try {
      this.#body.resume();
      if (this.#body.isReadable && !this.#closed) this.#controller?.resume();
    } catch (cause) {
      this.onException(cause);
    }
  }

  /** Frees what it holds beside the connection. */
  #releaseResources(): void {
    this.#deadlines.stop();
    this.#body.destroy();
  }

  #settleOpen(error: Error | null): void {
    if (error === null) this.#resolve?.();
    else this.#reject?.(error);
    this.#resolve = null;
    this.#reject = null;
  }
}

function abort(controller: Controller | null): void {
  controller?.abort(new Error("the provider did not close after [DONE]"));
}
