import type { IncomingMessage } from "node:http";
import { errorCodes, type FastifyInstance, type FastifyRequest } from "fastify";
import { AppError } from "../../errors.ts";
import { GrowingBuffer } from "../../lib/growing-buffer.ts";
import { JsonRefusal, parseJsonObject, type JsonLimits, type JsonObject } from "../../lib/json-object.ts";
import { foldCase } from "../../lib/key-disguise.ts";
import { codingsOf, decodeBody } from "./content-coding.ts";

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
