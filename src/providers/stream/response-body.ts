import { StreamReader } from "./stream-reader.ts";
import { type BodyShape, type MediaClass, mediaClassOf, shapeOf } from "./response-rules.ts";
import { codingsIn } from "../../lib/content-codings.ts";
import { BodyDecoder, type DecodedListener, isDecodable } from "./body-decoder.ts";
import { ErrorResponse, headOf } from "./error-response.ts";
import { type ResponseHead, UpstreamError, type UpstreamStage } from "../upstream-error.ts";
import { JsonReader } from "./json-reader.ts";
import { type ApiName, apis } from "../apis.ts";
import type { Provider, UpstreamRequest } from "../provider.ts";
import type { ResponseReader, ResponseSink } from "./response-reader.ts";

type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** Who receives a response. */
export interface BodyListener extends ResponseSink {
  /** How far the response has come. */
  readonly stage: UpstreamStage;
  /** Nothing more is read; `error` is null if the response is complete. */
  onBodyEnd(error: UpstreamError | null): void;
  /** More may be pushed, after push() has returned false. */
  onReadable(): void;
  /** An unexpected exception. */
  onException(cause: unknown): void;
}

const nothing: Buffer = Buffer.alloc(0);
/** Statuses of a response with a body of its own: SDKs take any 2xx, and some frameworks answer each POST with 201. */
const answers: ReadonlySet<number> = new Set([200, 201, 202, 203]);
/** If this many bytes don't reveal the form, the media type alone decides. */
const maxSniffedBytes = 64;

/**
 * The body of a response while it arrives: decodes it, detects its form, and passes it to the reader for that. Media
 * type and first bytes decide together, because neither is reliable.
 */
export class ResponseBody implements DecodedListener {
  /** Reads the response; it is not replaced after the first event. */
  reader: ResponseReader;
  readonly #request: UpstreamRequest;
  readonly #provider: Provider;
  readonly #listener: BodyListener;
  /** Wall-clock ms. */
  readonly #now: () => number;
  #status = 0;
  #headers: Headers = {};
  /** Set if the status says that the response is an error. */
  #error: ErrorResponse | null = null;
  #decoder: BodyDecoder | null = null;
  /** Whether the decoder accepts no more for now. */
  #isFull = false;
  /** The class of the media type; null once the form of the body is known. */
  #media: MediaClass | null = "unsaid";
  /** The first bytes, while they don't reveal the form. */
  #head = nothing;
  /** The error that cut the body, kept until the decoder has finished. */
  #cut: UpstreamError | null = null;

  /** @param now wall-clock ms */
  constructor(request: UpstreamRequest, provider: Provider, listener: BodyListener, now: () => number) {
    this.#request = request;
    this.#provider = provider;
    this.#listener = listener;
    this.#now = now;
    this.reader = createReader(request.api, request.collects, provider, listener, request.choices);
  }

  /** Status and headers; null before they have arrived. */
  get head(): ResponseHead | null {
    return this.#status === 0 ? null : headOf(this.#provider, this.#status, this.#headers);
  }

  /** False if the caller must wait for onReadable before it pushes more. */
  get isReadable(): boolean {
    return !this.#isFull;
  }

  /**
   * The response has begun. Returns an error if the body need not be read.
   * @param model the provider's name for it
   * @param status HTTP status
   */
  start(model: string, status: number, headers: Headers): UpstreamError | null {
    this.#status = status;
    this.#headers = headers;
    if (status >= 400) this.#error = new ErrorResponse(this.#provider, model, status, headers);
    else if (!answers.has(status)) return this.#invalidResponse("the response has an unexpected status");
    const codings = codingsIn(String(headers["content-encoding"] ?? ""));
    if (!isDecodable(codings)) {
      const error = this.#error?.toUpstreamError(this.#now());
      return error ?? this.#invalidResponse("the response is in a coding that was not requested and can't be read");
    }
    const media = mediaClassOf(firstOf(headers["content-type"]));
    if (this.#error === null && media === null) return this.#invalidResponse("the response is of another media type");
    this.#media = media ?? "vague";
    const [coding] = codings;
    if (coding !== undefined) this.#decoder = new BodyDecoder(coding, this);
    return null;
  }

  /** Takes received bytes, at least one. False if the caller must wait for onReadable. */
  push(bytes: Buffer): boolean {
    if (this.#decoder === null) {
      // The usual case: events.
      if (this.#media === null) this.reader.push(bytes);
      else this.#take(bytes);
      return true;
    }
    this.#isFull = !this.#decoder.write(bytes);
    return !this.#isFull;
  }

  /**
   * Nothing more comes. onBodyEnd is called once everything received has been read.
   * @param cut the error that ended it; null if it ended cleanly
   */
  end(cut: UpstreamError | null): void {
    this.#cut = cut;
    if (this.#decoder === null) this.#finish(cut);
    else this.#decoder.end();
  }

  /** Stops waiting, even for a decoder. onBodyEnd is called at once. */
  stop(cut: UpstreamError): void {
    this.#finish(cut);
  }

  pause(): void {
    this.#decoder?.pause();
  }

  resume(): void {
    this.#decoder?.resume();
  }

  /** Reports nothing from now on. */
  destroy(): void {
    this.#decoder?.destroy();
  }

  // zlib calls the following methods from its own callbacks: an exception in one would end the process.

  onDecoded(bytes: Buffer): void {
    this.#guard(() => {
      this.#take(bytes);
    });
  }

  onDecoderDrain(): void {
    this.#isFull = false;
    this.#guard(() => {
      this.#listener.onReadable();
    });
  }

  onDecoderEnd(): void {
    this.#guard(() => {
      this.#finish(this.#cut);
    });
  }

  onDecoderError(): void {
    this.#guard(() => {
      this.#finish(this.#invalidResponse("the response is not in the coding that it names"));
    });
  }

  #guard(act: () => void): void {
    try {
      act();
    } catch (cause) {
      this.#listener.onException(cause);
    }
  }

  #take(bytes: Buffer): void {
    if (this.#media === null) this.reader.push(bytes);
    else if (this.#error === null) this.#detectShape(this.#media, bytes);
    else if (!this.#error.push(bytes)) this.#finish(null);
  }

  #detectShape(media: MediaClass, bytes: Buffer): void {
    // Both readers ignore blank lines. Some providers send them while a request queues.
    this.#head = this.#head.length === 0 ? withoutBlanks(bytes) : Buffer.concat([this.#head, bytes]);
    const shape = shapeOf(media, this.#head, this.#head.length > maxSniffedBytes);
    if (shape !== null) this.#readAs(shape);
  }

  #readAs(shape: BodyShape): void {
    const head = this.#head;
    this.#head = nothing;
    this.#media = null;
    const { api } = this.#request;
    if (shape === "unreadable" || (shape === "events" && apis[api].stream === null)) {
      this.#listener.onBodyEnd(this.#invalidResponse("the response is neither in the requested form nor JSON"));
      return;
    }
    if (shape === "json") this.reader = createWholeReader(api, this.#provider, this.#listener);
    this.reader.push(head);
  }

  #finish(cut: UpstreamError | null): void {
    if (this.#error !== null) {
      this.#listener.onBodyEnd(this.#error.toUpstreamError(this.#now()));
      return;
    }
    if (this.#media !== null && this.#head.length > 0) {
      const shape = shapeOf(this.#media, this.#head, true);
      if (shape !== null) this.#readAs(shape);
    }
    this.#listener.onBodyEnd(this.reader.end(cut));
  }

  /** A retry would get a response of the same form. Nothing of the body may be logged. */
  #invalidResponse(upstreamMessage: string): UpstreamError {
    const { stage } = this.#listener;
    return new UpstreamError({ kind: "invalid_response", stage, isPermanent: true, upstreamMessage });
  }
}

/** The first value of a header. */
function firstOf(value: string | string[] | undefined): string {
  return (typeof value === "string" ? value : value?.[0]) ?? "";
}

function withoutBlanks(bytes: Buffer): Buffer {
  let at = 0;
  while (at < bytes.length && (bytes[at] ?? 0) <= 0x20) at++;
  return bytes.subarray(at);
}

/**
 * Creates the reader for responses of an API.
 * @param collects whether the response becomes one JSON, so that the sink needs each event parsed
 * @param choices number of choices requested
 */
export function createReader(
  api: ApiName,
  collects: boolean,
  provider: Provider,
  sink: ResponseSink,
  choices = 1,
): ResponseReader {
  const { stream } = apis[api];
  if (stream === null) return createWholeReader(api, provider, sink);
  return new StreamReader(provider, sink, stream.createParser(), collects, choices);
}

/** Creates the reader for a response that is one JSON, whether or not a stream was requested. */
function createWholeReader(api: ApiName, provider: Provider, sink: ResponseSink): ResponseReader {
  return new JsonReader(provider, sink, apis[api].stream);
}
