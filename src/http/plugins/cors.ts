import type { IncomingMessage, ServerResponse } from "node:http";
import type { FastifyInstance } from "fastify";
import { routedPath } from "../../lib/request-target.ts";

/** Which web pages may read the proxy's answers. */
export interface Cors {
  /** Whether any page may. Where not, nothing is ever said about it. */
  readonly enabled: boolean;
  /**
   * The headers of every answer to a request.
   * @param target what stands in its request line
   * @param origin its Origin header
   */
  headersFor(target: string, origin: string | undefined): Readonly<Record<string, string>>;
}

const allowOrigin = "access-control-allow-origin";
/** What a page may read beside the few headers that are always open to it. */
const exposed = [
  ...["x-request-id", "retry-after", "x-should-retry"],
  ...["x-quota-remaining", "x-quota-reset", "x-quota-warning"],
].join(", ");
const methods = "GET, HEAD, POST, PUT, PATCH, DELETE";
/** How long a browser may remember that it may ask, in s. */
const maxAge = "7200";

/** @param origins server.cors_origins: origins such as https://app.example, or `*` for all */
export function createCors(origins: readonly string[]): Cors {
  const anyone = origins.includes("*");
  const listed = new Set(origins);
  return {
    enabled: anyone || listed.size > 0,
    headersFor(target, origin) {
      // Pages have no business with what administrators do.
      if (/^\/admin(\/|$)/i.test(routedPath(target))) return {};
      // Said to everybody: an answer that a cache keeps must not reach a page of another origin.
      if (origin === undefined || !(anyone || listed.has(origin))) return { vary: "Origin" };
      return { [allowOrigin]: anyone ? "*" : origin, "access-control-expose-headers": exposed, vary: "Origin" };
    },
  };
}

/** Puts the headers into the raw response, so that streams have them too. Returns whether a page may read it. */
export function allowPage(cors: Cors, { url = "", headers }: IncomingMessage, response: ServerResponse): boolean {
  if (!cors.enabled) return false;
  const allowed = cors.headersFor(url, headers.origin);
  for (const name in allowed) response.setHeader(name, allowed[name] ?? "");
  return allowOrigin in allowed;
}

/**
 * Lets pages read the answers, and answers a browser that asks beforehand: without a token, which it doesn't send, and
 * whatever the path, so that the page gets to see a 404 as well.
 */
export function registerCors(app: FastifyInstance, cors: Cors): void {
  if (!cors.enabled) return;
  app.addHook("onRequest", (request, reply, next) => {
    const allowed = allowPage(cors, request.raw, reply.raw);
    if (!allowed || request.method !== "OPTIONS" || !("access-control-request-method" in request.headers)) {
      next();
      return;
    }
    const wanted = request.headers["access-control-request-headers"];
    if (wanted !== undefined) reply.header("access-control-allow-headers", wanted);
    void reply
      .code(204)
      .headers({
        "access-control-allow-methods": methods,
        "access-control-max-age": maxAge,
        vary: "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
      })
      .send();
  });
}
