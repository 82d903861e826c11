import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { ServerTrace, Tracing } from "../../telemetry/tracing.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** The trace that it belongs to; null: none. */
    trace: ServerTrace | null;
  }
}

/**
 * Begins the trace of each request at its arrival, and ends it with its response. Register it before what refuses.
 *
 * @param runningTraces as in Events: is kept up to date
 */
export function registerTracing(app: FastifyInstance, tracing: Tracing, runningTraces: Map<string, string>): void {
  app.decorateRequest("trace", null);
  app.addHook("onRequest", (request, reply, next) => {
    const { raw } = request;
    // Most requests belong to no trace, and cost nothing here.
    if (tracing.records || raw.headers.traceparent !== undefined) {
      request.trace = begin(request);
      if (request.trace !== null) noteRunning(request.id, request.trace.traceId, reply);
    }
    next();
  });

  function noteRunning(id: string, traceId: string, { raw }: FastifyReply): void {
    runningTraces.set(id, traceId);
    raw.once("close", () => {
      runningTraces.delete(id);
    });
  }

  function begin({ raw, ip, id, is404, routeOptions }: FastifyRequest): ServerTrace | null {
    const { method = "", headers } = raw;
    const route = is404 ? undefined : routeOptions.url;
    return tracing.begin({ method, path: pathOf(raw.url), route, ip, requestId: id, headers });
  }

  if (!tracing.records) return;
  app.addHook("onResponse", (request, reply, done) => {
    // A response that the gateway wrote is not known to fastify; of one without headers no status was sent.
    request.trace?.responded(reply.raw.headersSent ? reply.raw.statusCode : 0, request.account?.username ?? null);
    done();
  });
}

/** Without the query, which may contain a secret. */
function pathOf(url = ""): string {
  const end = url.indexOf("?");
  return end === -1 ? url : url.slice(0, end);
}
