import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { errorCodes, type FastifyInstance, type FastifyRequest } from "fastify";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import { codingsIn, createDecoder, decodableCodings, isDecodableCoding } from "../../lib/content-codings.ts";
import { GrowingBuffer } from "../../lib/growing-buffer.ts";
import { type JsonLimits, type JsonObject, JsonRefusal, parseJsonObject } from "../../lib/json-object.ts";
import { foldCase } from "../../lib/key-disguise.ts";
import { type Slotted, SwapRemoveSet } from "../../lib/swap-remove-set.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Whether the handler gets the body with its bytes (a JsonObject) rather than just its value. */
    keepBytes?: boolean;
  }
  interface FastifyRequest {
    /** The body as sent, before decoding its Content-Encoding; null if there is none. */
    bodyBytes: Buffer | null;
  }
}

/** Nested JSON; tool schemas nest, but not this deep. */
const maxDepth = 200;

/** Requests to providers: long conversations, token ids, the schemas of many tools. */
const apiLimits: JsonLimits = { maxDepth, maxKeys: 200_000, maxNewKeys: 5_000, maxValues: 500_000 };
/** Everything else is a form with a few fields. */
const formLimits: JsonLimits = { maxDepth, maxKeys: 1_000, maxNewKeys: 1_000, maxValues: 10_000 };
/** The largest body of a route that calls no provider, in bytes. Some of them read it before authentication. */
const formBytes = 64 << 10;

/**
 * Bodies must be JSON objects in UTF-8, optionally compressed: other content types and codings get 415. Routes without
 * `keepBytes` take at most 64 KB.
 */
export function registerJsonBody(app: FastifyInstance): void {
  app.decorateRequest("bodyBytes", null);
  app.addHook("onRoute", (route) => {
    if (route.config?.keepBytes !== true)
      route.bodyLimit = Math.min(formBytes, app.initialConfig.bodyLimit ?? formBytes);
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", (request, payload, done) => {
    const refuse = (error: unknown): void => {
      done(error instanceof Error ? error : new Error(String(error)));
    };
    const take = (bytes: Buffer): void => {
      request.bodyBytes = bytes;
      checkCharset(request.headers["content-type"] ?? "");
      const codings = codingsOf(request.headers["content-encoding"] ?? "");
      if (codings.length === 0) {
        done(null, parse(bytes, request));
        return;
      }
      const count = (size: number): void => request.bodyHold?.add(size);
      decodeBody(bytes, codings, { limit: request.routeOptions.bodyLimit, count })
        .then((decoded) => parse(decoded, request))
        .then((value) => {
          done(null, value);
        }, refuse);
    };
    readBody(request, payload, take, refuse);
  });
}

/** Reads a body up to the route's limit; ends with one of the two callbacks. What `take` throws goes to `refuse`. */
function readBody(
  { headers, routeOptions: { bodyLimit }, bodyHold }: FastifyRequest,
  payload: IncomingMessage,
  take: (bytes: Buffer) => void,
  refuse: (error: unknown) => void,
): void {
  const declared = Number(headers["content-length"] ?? 0);
  if (declared > bodyLimit) {
    refuse(new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE());
    return;
  }
  const body = new GrowingBuffer(bodyLimit, declared);
  const stop = (): void => {
    payload.off("data", onData).off("end", onEnd).off("error", onError);
  };
  const onError = (cause: unknown): void => {
    stop();
    refuse(new AppError("bad_http", { cause }));
  };
  const onData = (piece: Buffer): void => {
    try {
      bodyHold?.add(piece.length);
      if (body.push(piece)) return;
      throw new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE();
    } catch (error) {
      stop();
      refuse(error);
    }
  };
  const onEnd = (): void => {
    stop();
    try {
      take(body.take());
    } catch (error) {
      refuse(error);
    }
  };
  payload.on("data", onData).on("end", onEnd).on("error", onError).resume();
}

/** The body on a route with `keepBytes`. Throws AppError invalid_json if the request has none. */
export function bodyOfRequest(request: FastifyRequest): JsonObject {
  // Without a content type and a length, fastify calls the handler without a body.
  if (request.body === undefined) throw new AppError("invalid_json", { message: "A JSON body is required." });
  return request.body as JsonObject;
}

/** RFC 8259 (8.1) allows only UTF-8. A body in another charset would be misread. */
function checkCharset(contentType: string): void {
  if (!contentType.includes(";")) return;
  for (const parameter of contentType.split(";").slice(1)) {
    const [name = "", value = ""] = parameter.split("=", 2);
    if (name.trim().toLowerCase() !== "charset") continue;
    const charset = value.trim().replaceAll('"', "").toLowerCase();
    if (charset === "utf-8" || charset === "utf8") continue;
    throw new AppError("unsupported_media_type", { message: "Send the body as application/json in UTF-8." });
  }
}

function parse(bytes: Buffer, { routeOptions: { config } }: FastifyRequest): unknown {
  try {
    if (config.keepBytes === true) return parseJsonObject(bytes, apiLimits);
    const { value } = parseJsonObject(bytes, formLimits);
    refuseCaseDuplicates(value);
    return value;
  } catch (error) {
    if (!(error instanceof JsonRefusal)) throw error;
    const { key } = error;
    throw new AppError("invalid_json", {
      message: key === undefined ? error.message : `${error.message} Key: ${JSON.stringify(key)}.`,
      ...(key === undefined ? {} : { param: key }),
    });
  }
}

/** Many parsers treat keys that differ only in case as one, perhaps including a parser in front of the proxy. */
function refuseCaseDuplicates(value: JsonObject["value"]): void {
  const seen = new Set<string>();
  for (const key in value) {
    const folded = foldCase(key);
    if (seen.has(folded)) throw new JsonRefusal("duplicate_key", key);
    seen.add(folded);
  }
}

/** No legitimate request has a body with more layers than this. */
const maxLayers = 3;

/**
 * The codings of a Content-Encoding header to decode, the last one applied first. `identity` is ignored.
 * @throws AppError `unsupported_media_type` for an unknown coding, with an Accept-Encoding header
 */
export function codingsOf(header: string): readonly string[] {
  const codings = codingsIn(header);
  if (codings.length > maxLayers) throw refuse(`Send the body in at most ${maxLayers} Content-Encodings.`);
  if (!codings.every(isDecodableCoding))
    throw refuse(`Content-Encoding must be one of ${decodableCodings}, or absent.`);
  return [...codings].reverse();
}

/** How a body is bounded while it is decoded. */
export interface DecodingBounds {
  /** Maximum size after each coding, in bytes. */
  readonly limit: number;
  /** Called with the size of each piece before it is kept; throws if there is no room for it. */
  readonly count: (bytes: number) => void;
}

/**
 * Decodes a body, off the main thread and in pieces: a few compressed bytes can become a great many.
 * @throws AppError `body_too_large` beyond the limit, `invalid_json` for damaged data, and whatever `count` throws
 */
export async function decodeBody(bytes: Buffer, codings: readonly string[], bounds: DecodingBounds): Promise<Buffer> {
  let decoded = bytes;
  try {
    for (const coding of codings) decoded = await decode(decoded, coding, bounds);
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    throw new AppError("invalid_json", { message: "The body is not in the Content-Encoding that it names.", cause });
  }
  return decoded;
}

/** Also refuses data after the end of the compressed stream: another decoder might read it. */
function decode(bytes: Buffer, coding: string, { limit, count }: DecodingBounds): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const stream = createDecoder(coding, bytes, { live: false });
    const body = new GrowingBuffer(limit, 0);
    stream.on("data", (piece: Buffer) => {
      try {
        count(piece.length);
        if (body.push(piece)) return;
        throw new AppError("body_too_large", { message: "The body is too large once it is decoded." });
      } catch (error) {
        stream.destroy(error instanceof Error ? error : new Error(String(error)));
      }
    });
    stream.on("end", () => {
      if (stream.bytesWritten === bytes.length) resolve(body.take());
      else reject(new Error("the compressed data ends before the body does"));
    });
    stream.on("error", reject);
    stream.end(bytes);
  });
}

function refuse(message: string): AppError {
  return new AppError("unsupported_media_type", { message, headers: { "accept-encoding": decodableCodings } });
}

declare module "fastify" {
  interface FastifyRequest {
    /** Counts the bytes of a body that may be large; null if it can't be. */
    bodyHold: BodyHold | null;
  }
}

/** The bytes of one body, counted until its request is over. */
interface BodyHold {
  /** Throws AppError `concurrency_exceeded` or `proxy_overloaded` if there is no room for so many more bytes. */
  add(bytes: number): void;
}

/** Bodies declared to be no larger than this are not counted, in bytes. */
const small = 1 << 20;
/** How many bodies of the largest size one user, and all users together, may have in memory at once. */
const perUser = 4;
const together = 16;

/**
 * Bounds the memory for the bodies of running requests. Each is kept to the end of its request, since another provider
 * may have to be tried; without a bound a few users with many large bodies could use up the memory.
 * @param largest server.body_limit_bytes
 */
export function boundLargeBodies(app: FastifyInstance, largest: number): void {
  const byUser = new Map<string, number>();
  let total = 0;

  function open(user: string): BodyHold & { release(): void } {
    let held = 0;
    let released = false;
    return {
      add(bytes) {
        // Nobody waits for it any longer, and what came would be counted for ever.
        if (released) throw new AppError("bad_http");
        const own = (byUser.get(user) ?? 0) + bytes;
        if (own > perUser * largest) {
          const message = "The bodies of your running requests are too large together.";
          throw new AppError("concurrency_exceeded", { message, retryAfterSeconds: 1 });
        }
        if (total + bytes > together * largest) throw new AppError("proxy_overloaded", { retryAfterSeconds: 1 });
        byUser.set(user, own);
        total += bytes;
        held += bytes;
      },
      release() {
        released = true;
        const left = (byUser.get(user) ?? 0) - held;
        if (left > 0) byUser.set(user, left);
        else byUser.delete(user);
        total -= held;
      },
    };
  }

  app.decorateRequest("bodyHold", null);
  app.addHook("preParsing", (request, reply, payload, done) => {
    const { headers, account, routeOptions } = request;
    const declared = Number(headers["content-length"] ?? Infinity);
    const mayBeLarge = declared > small || headers["content-encoding"] !== undefined;
    if (mayBeLarge && account !== null && routeOptions.config.keepBytes === true) {
      const hold = open(account.username);
      request.bodyHold = hold;
      reply.raw.once("close", () => {
        hold.release();
      });
    }
    done(null, payload);
  });
}

/** The minimum speed of a body: a slower client ties up a connection. */
const leastBytesPerSecond = 1024;
/** The longest that a body may take at any speed, in ms. */
const longestMs = 600_000;

declare module "fastify" {
  interface FastifyRequest {
    /** The body while it is being received. */
    upload: Upload | null;
  }
}

interface Upload extends Slotted {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly startedAt: number;
  checkedAt: number;
  /** Bytes received on the connection by then. */
  bytes: number;
  /** Whether the route responds without reading it, as for a GET. */
  unread: boolean;
}

interface WatchOptions {
  /** server.request_seconds in ms: the speed is measured over each such span. */
  readonly spanMs: number;
  readonly clock: Clock;
  /** Responds to a request that takes too long, and closes its connection. */
  readonly refuse: (error: Error & { code: string }, socket: Socket) => void;
}

/**
 * Refuses bodies that hardly advance with 408. A limit on the total time would be too short for a large body on a slow
 * connection, or too long for a client that sends a byte now and then.
 */
export function watchUploads(app: FastifyInstance, { spanMs, clock, refuse }: WatchOptions): void {
  // No Map or Set: with one change a request their old tables would keep finished requests (see SwapRemoveSet), and the
  // burst row of the benchmark would double.
  const uploads = new SwapRemoveSet<Upload>();
  app.decorateRequest("upload", null);

  app.addHook("onRequest", (incoming, reply, next) => {
    const { raw } = incoming;
    if (raw.headers["content-length"] !== undefined || raw.headers["transfer-encoding"] !== undefined) {
      const now = clock.monotonic();
      const bytes = raw.socket.bytesRead;
      incoming.upload = {
        slot: -1,
        request: raw,
        response: reply.raw,
        startedAt: now,
        checkedAt: now,
        bytes,
        unread: false,
      };
      uploads.add(incoming.upload);
    }
    next();
  });
  // The body has been read, or never will be: then it must still end, or the connection would stay open for ever.
  app.addHook("preValidation", (incoming, _reply, next) => {
    const { upload, raw } = incoming;
    if (upload !== null) {
      if (raw.complete) uploads.delete(upload);
      else upload.unread = true;
    }
    incoming.upload = null;
    next();
  });

  // One timer for all: most bodies are complete before it fires and need no timer of their own.
  const timer = setInterval(
    () => {
      const now = clock.monotonic();
      for (const upload of uploads.items()) {
        const { request, response, unread } = upload;
        if (request.complete || request.destroyed) uploads.delete(upload);
        // Responded to already: the rest is read and discarded, but not for long.
        else if (response.writableEnded && now - upload.startedAt >= spanMs) request.destroy();
        else if (!unread && isTooSlow(upload, request.socket, now)) {
          uploads.delete(upload);
          const error = new Error("the body takes too long to arrive");
          refuse(Object.assign(error, { code: "ERR_HTTP_REQUEST_TIMEOUT" }), request.socket);
        }
      }
    },
    Math.min(2_000, spanMs / 2),
  ).unref();
  app.addHook("onClose", (_app, done) => {
    clearInterval(timer);
    done();
  });

  /** Measures the speed at the end of each span, and begins another. */
  function isTooSlow(upload: Upload, { bytesRead }: Socket, now: number): boolean {
    const passed = now - upload.checkedAt;
    if (passed < spanMs) return false;
    const came = bytesRead - upload.bytes;
    upload.checkedAt = now;
    upload.bytes = bytesRead;
    return came < (passed / 1000) * leastBytesPerSecond || now - upload.startedAt > longestMs;
  }
}
