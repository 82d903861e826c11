import type { FastifyInstance, FastifyRequest } from "fastify";
import { AppError } from "../../errors.ts";
import { JsonRefusal, parseJsonObject, type JsonObject } from "../../lib/json-object.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Whether the handler gets the body with its bytes (a JsonObject) rather than its value alone. */
    keepBytes?: boolean;
  }
  interface FastifyRequest {
    /** The body as it came; null where there is none. */
    bodyBytes: Buffer | null;
  }
}

/** JSON inside JSON inside JSON; tools' schemas nest, but not like this. */
const maxDepth = 200;

/** Bodies are JSON objects in UTF-8, strictly, and nothing else: other content types get 415. */
export function registerJsonBody(app: FastifyInstance): void {
  app.decorateRequest("bodyBytes", null);
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "buffer" }, (request, body, done) => {
    try {
      const bytes = typeof body === "string" ? Buffer.from(body) : body;
      request.bodyBytes = bytes;
      const object = parse(bytes);
      done(null, request.routeOptions.config.keepBytes === true ? object : object.value);
    } catch (error) {
      done(error instanceof Error ? error : new Error(String(error)));
    }
  });
}

/** The body on a route with `keepBytes`. Throws AppError invalid_json where the request has none. */
export function bodyOfRequest(request: FastifyRequest): JsonObject {
  // Without a content type and a length, fastify goes on to the handler without a body.
  if (request.body === undefined) throw new AppError("invalid_json", { message: "A JSON body is required." });
  return request.body as JsonObject;
}

function parse(bytes: Buffer): JsonObject {
  try {
    return parseJsonObject(bytes, { maxDepth });
  } catch (error) {
    if (!(error instanceof JsonRefusal)) throw error;
    const { key } = error;
    throw new AppError("invalid_json", {
      message: key === undefined ? error.message : `${error.message} Key: ${JSON.stringify(key)}.`,
      ...(key === undefined ? {} : { param: key }),
    });
  }
}
