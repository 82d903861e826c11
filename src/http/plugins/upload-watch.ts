import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { FastifyInstance } from "fastify";
import type { Clock } from "../../lib/clock.ts";
import { type Slotted, SwapRemoveSet } from "../../lib/swap-remove-set.ts";

/** The minimum speed of a body: a slower client ties up a connection. */
const leastBytesPerSecond = 1024;
/** The longest that a body may take at any speed, in ms. */
const longestMs = 600_000;

declare module "fastify" {
  interface FastifyRequest {
    /** The body while it is being received. */
    upload: Upload | null;
  }
}

interface Upload extends Slotted {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly startedAt: number;
  checkedAt: number;
  /** Bytes received on the connection by then. */
  bytes: number;
}

interface WatchOptions {
  /** server.request_seconds in ms: the speed is measured over each such span. */
  readonly spanMs: number;
  readonly clock: Clock;
  /** Responds to a request that takes too long, and closes its connection. */
  readonly refuse: (error: Error & { code: string }, socket: Socket) => void;
}

/**
 * Refuses bodies that hardly advance with 408. A limit on the total time would be too short for a large body on a slow
 * connection, or too long for a client that sends a byte now and then.
 */
export function watchUploads(app: FastifyInstance, { spanMs, clock, refuse }: WatchOptions): void {
  // No Map or Set: with one change a request their old tables would keep finished requests (see SwapRemoveSet), and the
  // burst row of the benchmark would double.
  const uploads = new SwapRemoveSet<Upload>();
  app.decorateRequest("upload", null);

  app.addHook("onRequest", (incoming, reply, next) => {
    const { raw } = incoming;
    if (raw.headers["content-length"] !== undefined || raw.headers["transfer-encoding"] !== undefined) {
      const now = clock.monotonic();
      const bytes = raw.socket.bytesRead;
      incoming.upload = { slot: -1, request: raw, response: reply.raw, startedAt: now, checkedAt: now, bytes };
      uploads.add(incoming.upload);
    }
    next();
  });
  // The body has been read.
  app.addHook("preValidation", (incoming, _reply, next) => {
    if (incoming.upload !== null) uploads.delete(incoming.upload);
    incoming.upload = null;
    next();
  });

  // One timer for all: most bodies are complete before it fires and need no timer of their own.
  const timer = setInterval(
    () => {
      const now = clock.monotonic();
      for (const upload of uploads.items()) {
        const { request, response } = upload;
        if (request.complete || request.destroyed) uploads.delete(upload);
        // Refused already: the rest is read and discarded, but not for long.
        else if (response.writableEnded && now - upload.startedAt >= spanMs) request.destroy();
        else if (isTooSlow(upload, request.socket, now)) {
          uploads.delete(upload);
          const error = new Error("the body takes too long to arrive");
          refuse(Object.assign(error, { code: "ERR_HTTP_REQUEST_TIMEOUT" }), request.socket);
        }
      }
    },
    Math.min(2_000, spanMs / 2),
  ).unref();
  app.addHook("onClose", (_app, done) => {
    clearInterval(timer);
    done();
  });

  /** Measures the speed at the end of each span, and begins another. */
  function isTooSlow(upload: Upload, { bytesRead }: Socket, now: number): boolean {
    const passed = now - upload.checkedAt;
    if (passed < spanMs) return false;
    const came = bytesRead - upload.bytes;
    upload.checkedAt = now;
    upload.bytes = bytesRead;
    return came < (passed / 1000) * leastBytesPerSecond || now - upload.startedAt > longestMs;
  }
}
