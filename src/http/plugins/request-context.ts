import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { FastifyInstance } from "fastify";
import type { Account } from "../../identity/account-schema.ts";
import { AppError } from "../../errors.ts";
import { version } from "../../version.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** The authenticated account; null on public routes. Set by the authentication hook. */
    account: Account | null;
  }
}

const wellFormedId = /^[A-Za-z0-9._-]{8,64}$/;

/** The request id: the client's X-Request-ID if it is well formed, else a new one. Nothing else reaches a log. */
export function requestIdOf(request: IncomingMessage): string {
  const given = request.headers["x-request-id"];
  return typeof given === "string" && wellFormedId.test(given) ? given : randomUUID();
}

/**
 * X-Request-ID on every response; `request.id` is the trace id everywhere. X-Proxy-Version on all but running chats, which
 * write their own headers: clients compare it with the versions that they were made for.
 */
export function registerRequestContext(app: FastifyInstance): void {
  app.decorateRequest("account", null);
  app.addHook("onRequest", (request, reply, next) => {
    reply.header("x-request-id", request.id);
    reply.header("x-proxy-version", version);
    if (namesItsHost(request.raw)) next();
    else next(new AppError("bad_http", { message: "The request must have one Host header." }));
  });
}

/** RFC 9112, 3.2: a request with two Host headers, or from HTTP/1.1 on with none, is refused. */
function namesItsHost({ rawHeaders, httpVersion }: IncomingMessage): boolean {
  let hosts = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    if (rawHeaders[at]?.length === 4 && rawHeaders[at]?.toLowerCase() === "host") hosts++;
  }
  return hosts === 1 || (hosts === 0 && httpVersion === "1.0");
}
