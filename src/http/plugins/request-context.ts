import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { FastifyInstance } from "fastify";
import type { Account } from "../../identity/account-schema.ts";
import { AppError } from "../../errors.ts";
import { plainForwardedFor } from "../../lib/ip-list.ts";
import { version } from "../../version.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** The authenticated account; null on public routes. Set by the authentication hook. */
    account: Account | null;
  }
}

const wellFormedId = /^[A-Za-z0-9._-]{8,64}$/;
/** A host as RFC 3986 (3.2.2) has it, or nothing, and perhaps a port. */
const wellFormedHost = /^(?:\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]*)(?::[0-9]*)?$/;

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
  // Node asks for the client's address when it is first read, and keeps it. A client that has reset its connection by then
  // has none, and nothing that counts or logs by address expects that.
  app.server.on("connection", (socket) => {
    if (socket.remoteAddress === undefined) socket.destroy();
  });
  app.decorateRequest("account", null);
  app.addHook("onRequest", (request, reply, next) => {
    const { headers } = request.raw;
    const forwarded = headers["x-forwarded-for"];
    // Before anything asks for request.ip, which fastify reads from there behind a trusted proxy.
    if (typeof forwarded === "string") headers["x-forwarded-for"] = plainForwardedFor(forwarded);
    reply.header("x-request-id", request.id);
    reply.header("x-proxy-version", version);
    const problem = headProblem(request.raw);
    if (problem === undefined) next();
    // Where the request ends is uncertain, and so is where the next one would begin.
    else next(new AppError("bad_http", { message: problem, headers: { connection: "close" } }));
  });
}

/**
 * What is wrong with a request's head that Node's parser accepts; undefined if nothing is. A proxy in front may read such
 * a request in another way, so that the two disagree about its end or about who is asked.
 */
function headProblem({ rawHeaders, headers, httpVersion }: IncomingMessage): string | undefined {
  if (httpVersion !== "1.1" && httpVersion !== "1.0") return "The request must be HTTP/1.1 or HTTP/1.0.";
  const coding = headers["transfer-encoding"];
  // RFC 9112, 6.1: HTTP/1.0 has no transfer codings, and one that isn't understood must not be passed over.
  if (coding !== undefined && (httpVersion === "1.0" || coding.toLowerCase() !== "chunked"))
    return "The only Transfer-Encoding that is taken is chunked, by HTTP/1.1.";
  // RFC 9112, 3.2: a request with two Host headers, with an invalid one, or from HTTP/1.1 on with none, is refused.
  let hosts = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    if (rawHeaders[at]?.length === 4 && rawHeaders[at]?.toLowerCase() === "host") hosts++;
  }
  if (hosts > 1 || (hosts === 0 && httpVersion === "1.1")) return "The request must have one Host header.";
  if (!wellFormedHost.test(headers.host ?? ""))
    return "The Host header must be a name or an address, perhaps with a port.";
  return undefined;
}
