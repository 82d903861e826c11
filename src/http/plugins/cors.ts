import type { IncomingMessage, ServerResponse } from "node:http";
import type { FastifyInstance } from "fastify";
import { rateHeaderNames } from "../../gateway/rate-headers.ts";
import { routedPath } from "../../lib/request-target.ts";

/** Which web pages may read the proxy's responses. */
export interface Cors {
  /** Whether any page may. If not, no CORS header is ever sent. */
  readonly enabled: boolean;
  /**
   * The CORS headers of every response to a request.
   * @param target the target in its request line
   * @param origin its Origin header
   */
  headersFor(target: string, origin: string | undefined): Readonly<Record<string, string>>;
}

const allowOrigin = "access-control-allow-origin";
/** The headers that a page may read in addition to the few that are always readable. */
const exposed = [
  "x-request-id",
  "x-proxy-version",
  "retry-after",
  "x-should-retry",
  "x-quota-remaining",
  "x-quota-reset",
  "x-quota-warning",
  ...rateHeaderNames,
].join(", ");
const methods = "GET, HEAD, POST, PUT, PATCH, DELETE";
/** How long a browser may cache a preflight, in s. */
const maxAge = "7200";

/** @param origins server.cors_origins: origins such as https://app.example, or `*` for all */
export function createCors(origins: readonly string[]): Cors {
  const anyone = origins.includes("*");
  const listed = new Set(origins);
  return {
    enabled: anyone || listed.size > 0,
    headersFor(target, origin) {
      // Pages must not call the admin routes.
      if (/^\/admin(\/|$)/i.test(routedPath(target))) return {};
      // Sent to everyone: a cached response must not reach a page of another origin.
      if (origin === undefined || !(anyone || listed.has(origin))) return { vary: "Origin" };
      return { [allowOrigin]: anyone ? "*" : origin, "access-control-expose-headers": exposed, vary: "Origin" };
    },
  };
}

/** Adds the headers to the raw response, so that streams have them too. Returns whether a page may read it. */
export function allowPage(cors: Cors, { url = "", headers }: IncomingMessage, response: ServerResponse): boolean {
  if (!cors.enabled) return false;
  const allowed = cors.headersFor(url, headers.origin);
  for (const name in allowed) response.setHeader(name, allowed[name] ?? "");
  return allowOrigin in allowed;
}

/**
 * Lets pages read the responses, and responds to preflights: without a token, which browsers don't send, and for any path,
 * so that the page sees a 404 as well.
 * @param cors the rules in force
 */
export function registerCors(app: FastifyInstance, cors: () => Cors): void {
  app.addHook("onRequest", (request, reply, next) => {
    const allowed = allowPage(cors(), request.raw, reply.raw);
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
