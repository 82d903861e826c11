import type { ServerResponse } from "node:http";
import type { FastifyInstance } from "fastify";

/**
 * Closes the connection of a client that has stopped reading a response. Otherwise anybody could keep connections for ever:
 * with many requests at once for a large public page, none of whose answers is read. Streams of the gateway and of events
 * have timers of their own, since they end with an outcome.
 *
 * @param stalledMs how long nothing may be read; asked at each response
 */
export function closeStalledReaders(app: FastifyInstance, stalledMs: () => number): void {
  // Of a request that came behind another one the time is still the other's, and would end it while it waits for a provider.
  app.addHook("onRequest", (_request, reply, next) => {
    // Without a socket it comes behind another one, and gets its time with the socket.
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
