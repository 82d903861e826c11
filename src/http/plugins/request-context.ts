import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { FastifyInstance } from "fastify";
import type { Account } from "../../accounts/account-schema.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** Who asks; null on public routes. Set by the access check. */
    account: Account | null;
  }
}

const wellFormedId = /^[A-Za-z0-9._-]{8,64}$/;

/** The id of a request: the client's X-Request-ID if it is well formed, else a new one. Nothing else reaches a log. */
export function requestIdOf(request: IncomingMessage): string {
  const given = request.headers["x-request-id"];
  return typeof given === "string" && wellFormedId.test(given) ? given : randomUUID();
}

/** X-Request-ID on every answer; `request.id` is the trace id everywhere. */
export function registerRequestContext(app: FastifyInstance): void {
  app.decorateRequest("account", null);
  app.addHook("onRequest", (request, reply, next) => {
    reply.header("x-request-id", request.id);
    next();
  });
}
