import type { ServerResponse } from "node:http";
import type { FastifyInstance } from "fastify";

/**
 * Closes the connection of a client that has stopped reading a response. Otherwise anybody could keep connections open
 * for ever: with many requests at once for a large public page, and no answer read. Streams of the gateway and of events
 * have timers of their own, since they end with an outcome.
 *
 * @param stalledMs how long nothing may be read; asked at each response
 */
export function closeStalledReaders(app: FastifyInstance, stalledMs: () => number): void {
  // The timeout of the response before, on the same connection, would end this one while it waits for a provider.
  app.addHook("onRequest", (_request, reply, next) => {
    // A pipelined request has no socket yet: Node sets the timeout once it gets one.
    if (reply.raw.socket?.timeout !== 0) reply.raw.setTimeout(0);
    next();
  });
  app.addHook("onSend", (_request, reply, _payload, next) => {
    reply.raw.on("timeout", closeIfUnread);
    // Node tells a slow reader from one that has stopped, and sets another time once the response is out.
    reply.raw.setTimeout(stalledMs());
    next();
  });
}

/** Nothing to read means that the route is still at work, as with a long report. */
function closeIfUnread(this: ServerResponse): void {
  if (this.writableLength > 0) this.destroy();
}
