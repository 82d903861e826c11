import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { FastifyInstance } from "fastify";
import type { Clock } from "../../lib/clock.ts";

/** A body must advance by so many bytes a second: who sends less ties a connection up. */
const leastBytesPerSecond = 1024;
/** How long a body may take however well it advances, in ms. */
const longestMs = 600_000;

interface Upload {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly startedAt: number;
  checkedAt: number;
  /** Bytes that the connection had brought by then. */
  bytes: number;
}

interface WatchOptions {
  /** server.request_seconds in ms: over each such span the pace is measured. */
  readonly spanMs: number;
  readonly clock: Clock;
  /** Answers a request that takes too long, and closes its connection. */
  readonly refuse: (error: Error & { code: string }, socket: Socket) => void;
}

/**
 * Refuses bodies that hardly advance with 408. A limit for the whole of a body would be too short for a large one on a
 * slow line, or too long for somebody who sends a byte now and then.
 */
export function watchUploads(app: FastifyInstance, { spanMs, clock, refuse }: WatchOptions): void {
  const uploads = new Set<Upload>();

  app.addHook("onRequest", ({ raw }, reply, next) => {
    if (raw.headers["content-length"] !== undefined || raw.headers["transfer-encoding"] !== undefined) {
      const now = clock.monotonic();
      uploads.add({ request: raw, response: reply.raw, startedAt: now, checkedAt: now, bytes: raw.socket.bytesRead });
    }
    next();
  });

  // One timer for all: most bodies are complete before it comes round, and cost no timer of their own.
  const timer = setInterval(
    () => {
      const now = clock.monotonic();
      for (const upload of uploads) {
        const { request, response } = upload;
        if (request.complete || request.destroyed) uploads.delete(upload);
        // Refused already: the rest is read and thrown away, but not for long.
        else if (response.writableEnded && now - upload.startedAt >= spanMs) request.destroy();
        else if (isTooSlow(upload, now)) {
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

  /** Measures the pace at the end of each span, and begins another. */
  function isTooSlow(upload: Upload, now: number): boolean {
    const passed = now - upload.checkedAt;
    if (passed < spanMs) return false;
    const { bytesRead } = upload.request.socket;
    const came = bytesRead - upload.bytes;
    upload.checkedAt = now;
    upload.bytes = bytesRead;
    return came < (passed / 1000) * leastBytesPerSecond || now - upload.startedAt > longestMs;
  }
}
