import type { Dispatcher } from "undici";
import type { Clock } from "../lib/clock.ts";
import { Backpressure, Deadlines } from "./deadlines.ts";
import { connectionError, UpstreamError, type UpstreamErrorKind, type UpstreamStage } from "./upstream-error.ts";
import type { AttemptTrace, RequestTrace } from "./attempt-trace.ts";
import { type Provider, type UpstreamRequest, usualForm } from "./provider.ts";
import type { Pass } from "./provider-health.ts";
import type { ResponseSink, EventRole, ResponseReader } from "./stream/response-reader.ts";
import { ResponseBody, type BodyListener } from "./stream/response-body.ts";

/** How long to wait for the body of an error, in ms: the status is known already, and the text may never come. */
const errorBodyMs = 5000;
/** How long a connection may take to close properly after [DONE] before it is cut, in ms. */
const lingerMs = 1000;

/** Errors that a slow client may have caused; errors that the provider reports are never among them. */
const interruptions: ReadonlySet<UpstreamErrorKind> = new Set<UpstreamErrorKind>(["timeout", "network", "truncated"]);

type Controller = Dispatcher.DispatchController;
type Headers = Parameters<NonNullable<Dispatcher.DispatchHandler["onResponseStart"]>>[2];

/**
 * One request to one provider, over one connection. `open()` resolves with the first data event, or rejects with an
 * error: until then nothing is charged and another provider may be tried. Afterwards `pipe()` passes the events to a
 * sink, which may pause, resume and cancel. In every case the connection is released and the sink's onEnd called once.
 */
export class Attempt implements Dispatcher.DispatchHandler, BodyListener {
  readonly provider: Provider;
  /** ms from open() to the first data event; null until then. */
  firstEventMs: number | null = null;
  /** Whether the response broke off while, or because, its reader was behind. */
  brokenByReader = false;
  /** The permit from the provider's circuits. */
  readonly #pass: Pass;
  readonly #request: UpstreamRequest;
  /** The key that was sent. */
  #key = "";
  readonly #clock: Clock;
  readonly #deadlines: Deadlines;
  readonly #body: ResponseBody;
  #controller: Controller | null = null;
  #sink: ResponseSink | null = null;
  /** Events that arrived while there was no sink; only a few, because reading is paused then. */
  #held: Parameters<ResponseSink["onEvent"]>[] = [];
  /** The sink of the last pipe() call. */
  #reader: ResponseSink | null = null;
  /** Whether the reader has called pause() and not yet resume(). */
  #readerBehind = false;
  /** Whether reading from the provider is paused. */
  #isPaused = false;
  readonly #backpressure = new Backpressure();
  #resolve: (() => void) | null = null;
  #reject: ((reason: Error) => void) | null = null;
  /** The provider's name for the model. */
  #model = "";
  #status = 0;
  #sawEvent = false;
  /** The reader's last value. */
  #graceMs: number | null = null;
  #linger: NodeJS.Timeout | undefined;
  /** Whether the provider's response has ended. */
  #closed = false;
  #trace: AttemptTrace | null = null;
  /** Set once the attempt is over; the error is null if the response is complete. */
  #ended: { readonly error: UpstreamError | null } | null = null;

  /** @param pass from the provider's health; the attempt must be opened or cancelled, so that it is given back */
  constructor(provider: Provider, pass: Pass, request: UpstreamRequest, clock: Clock) {
    this.provider = provider;
    this.#pass = pass;
    this.#request = request;
    this.#clock = clock;
    this.#body = new ResponseBody(request, provider, this, () => clock.now());
    this.#deadlines = new Deadlines(provider.timeouts, clock, this);
    provider.health.sent();
  }

  /** The reader of the response, with its state so far. */
  get reader(): ResponseReader {
    return this.#body.reader;
  }

  /** "connect" only if nothing was sent because there was no connection: a later error may be due to the request. */
  get stage(): UpstreamStage {
    if (this.#controller === null) return "connect";
    if (this.#status === 0) return "first_byte";
    return this.firstEventMs === null ? "first_event" : "streaming";
  }

  /**
   * Sends the request. Resolves when the first data event that is not an error has arrived.
   * Rejects with an UpstreamError, or with the reason passed to cancel().
   * @param model the provider's name for it
   * @param since monotonic ms from which the total time counts
   * @param trace of its request; null: it has none
   */
  open(model: string, since: number, form = usualForm, trace: RequestTrace | null = null): Promise<void> {
    const { origin, dispatcher, kind } = this.provider;
    const endpoint = this.provider.endpoint(this.#request.api, model);
    const body = this.#request.bodyFor(model, { ...kind.features, streamOptions: form.streamOptions }, form.asWhole);
    this.#model = model;
    this.#key = this.provider.secret;
    const opened = new Promise<void>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#deadlines.start(since);
    // Its headers come with the whole response.
    if (form.asWhole) this.#deadlines.toStage("first_event");
    this.#trace = trace?.startAttempt(this.provider, this.#request, model) ?? null;
    const headers = this.#trace === null ? endpoint.headers : { ...endpoint.headers, ...this.#trace.headers };
    dispatcher.dispatch({ origin, path: endpoint.path, method: "POST", headers, body }, this);
    return opened;
  }

  /** Whether the request was sent and the provider has not rejected it. */
  get isSent(): boolean {
    return this.#controller !== null && this.#status < 300;
  }

  /** ms from the first data event to now, or null if none came. Call it when the response is over. */
  generationMs(): number | null {
    return this.firstEventMs === null ? null : this.#clock.monotonic() - this.#deadlines.startedAt - this.firstEventMs;
  }

  /** Passes all events to `sink`, from the first one, or from the call of unpipe() on. */
  pipe(sink: ResponseSink): void {
    // A new reader is not behind yet.
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

  /** Stops reading from the provider and buffers further events until pipe() is called again. */
  unpipe(): void {
    this.#sink = null;
    this.#pauseReading();
  }

  /** Stops reading from the provider because the reader is behind. The provider's deadlines pause meanwhile. */
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
   * Ends the attempt from our side and closes the connection. Does nothing if it has ended.
   * @param cancelReason what a pending open() rejects with
   */
  cancel(cancelReason?: Error): void {
    if (this.#ended !== null) return;
    // Created only when needed: an error with its stack costs as much as a JSON.parse.
    const reason = cancelReason ?? new Error("the request is over");
    this.#setEnd(null, true);
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
      // What looked like the end of a JSON was not.
      if (error === cut) this.#graceMs = null;
      else this.onBodyEnd(error);
    } catch (cause) {
      this.onException(cause);
    }
  }

  // undici calls the following methods from callbacks of the socket: an exception in one would end the process.

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
      // After a pause the parser may pass on an empty chunk. Pausing on it would leave the connection paused at its
      // end.
      if (chunk.length > 0) this.#take(chunk);
    } catch (cause) {
      this.onException(cause);
    }
  }

  onResponseEnd(): void {
    this.#closed = true;
    clearTimeout(this.#linger);
    try {
      if (this.#ended === null) this.#body.end(null);
    } catch (cause) {
      this.onException(cause);
    }
  }

  onResponseError(_controller: Controller, cause: Error): void {
    this.#closed = true;
    clearTimeout(this.#linger);
    try {
      if (this.#ended !== null) return;
      this.#body.end(connectionError(cause, this.stage));
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
    else if (status >= 400) this.#deadlines.endWithin(errorBodyMs);
  }

  #take(chunk: Buffer): void {
    if (this.#ended !== null) return;
    if (this.#backpressure.isSettling) this.#backpressure.dataReceived(this.#clock.monotonic());
    if (!this.#body.push(chunk)) this.#controller?.pause();
  }

  onEvent(event: Buffer, start: number, end: number, textBytes: number, role: EventRole, parsed: unknown): void {
    this.#sawEvent = true;
    // Some servers put a finish_reason into every event: if more text follows, that was not the end.
    if (textBytes > 0) this.#graceMs = null;
    this.#trace?.event(event, start, end, parsed);
    if (this.#sink !== null) {
      this.#sink.onEvent(event, start, end, textBytes, role, parsed);
      return;
    }
    this.#held.push([event, start, end, textBytes, role, parsed]);
    if (this.firstEventMs === null) {
      const now = this.#clock.monotonic();
      this.firstEventMs = now - this.#deadlines.startedAt;
      this.provider.health.responded(this.#pass, this.firstEventMs, now);
      this.#trace?.firstEvent(this.firstEventMs);
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
    // The reader never calls this: the attempt decides where a response ends.
  }

  /** The response is over, complete or not. */
  onBodyEnd(error: UpstreamError | null): void {
    if (error !== null) this.#fail(error);
    if (this.#ended !== null) return;
    this.#setEnd(null);
    this.provider.health.completed();
    this.#releaseResources();
    this.#settleOpen(null);
    this.#sink?.onEnd(null);
    if (this.#closed) return;
    if (!this.reader.done) {
      this.#controller?.abort(new Error("the provider did not close after a complete response"));
      return;
    }
    // After [DONE] only the end of the body is missing. It nearly always came in the same read, which is processed
    // before any microtask runs. A provider that doesn't close must not hold the connection for ever.
    queueMicrotask(() => {
      if (!this.#closed) this.#linger = setTimeout(abort, lingerMs, this.#controller).unref();
    });
  }

  #fail(error: UpstreamError): void {
    if (this.#ended !== null) return;
    const now = this.#clock.monotonic();
    this.#setEnd(error);
    error.head = this.#body.head;
    this.brokenByReader = interruptions.has(error.facts.kind) && this.#backpressure.mayHaveBrokenResponse(now);
    error.isOutdated = error.facts.kind === "key_refused" && this.provider.hasReplaced(this.#key);
    const isExcused = this.brokenByReader || error.isOutdated || error.facts.isStale === true;
    if (isExcused) this.provider.health.abandoned(this.#pass);
    else this.provider.health.failed(this.#pass, error, now);
    this.#releaseResources();
    this.#controller?.abort(error);
    this.#settleOpen(error);
    this.#sink?.onEnd(error);
  }

  onReadable(): void {
    if (!this.#isPaused && !this.#closed && this.#ended === null) this.#controller?.resume();
  }

  /** An exception ends only this response. */
  onException(cause: unknown): void {
    const stage = this.firstEventMs === null ? "first_event" : "streaming";
    const error = new UpstreamError({ kind: "invalid_response", stage, cause });
    try {
      this.#fail(error);
    } catch {
      // The sink threw again. It has been notified, and its client's connection has timeouts of its own.
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

  /** Releases everything but the connection. */
  #releaseResources(): void {
    this.#deadlines.stop();
    this.#body.destroy();
  }

  #setEnd(error: UpstreamError | null, cancelled = false): void {
    this.#ended = { error };
    this.#trace?.end({ error, cancelled, status: this.#status, report: this.reader });
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
