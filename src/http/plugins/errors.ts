import { randomUUID } from "node:crypto";
import type { Socket } from "node:net";
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { hasZodFastifySchemaValidationErrors } from "fastify-type-provider-zod";
import { AppError, errorBody, type ErrorCode } from "../../errors.ts";
import type { Emit } from "../../events/types.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Whether the route tells of its own failures; else each is a request.failed event. */
    reportsItself?: boolean;
  }
}

/** Fastify's own refusals, in the words of the table. */
const fastifyCodes: ReadonlyMap<string, ErrorCode> = new Map<string, ErrorCode>([
  ["FST_ERR_CTP_BODY_TOO_LARGE", "body_too_large"],
  ["FST_ERR_CTP_INVALID_MEDIA_TYPE", "unsupported_media_type"],
  ["FST_ERR_CTP_EMPTY_JSON_BODY", "invalid_json"],
  ["FST_ERR_CTP_INVALID_CONTENT_LENGTH", "bad_http"],
  ["FST_ERR_BAD_URL", "not_found"],
]);

/** Errors of Node's HTTP parser that have a status of their own. */
const parserCodes: ReadonlyMap<string, ErrorCode> = new Map<string, ErrorCode>([
  ["HPE_HEADER_OVERFLOW", "headers_too_large"],
  ["ERR_HTTP_REQUEST_TIMEOUT", "request_timeout"],
]);

interface ErrorsOptions {
  readonly log: Log;
  readonly emit: Emit;
  readonly clock: Clock;
}

/** One place where errors become answers. */
export function registerErrors(app: FastifyInstance, options: ErrorsOptions): void {
  app.setErrorHandler((error: FastifyError, request, reply) => {
    answer(toAppError(error), request, reply, options);
  });
  app.setNotFoundHandler((request, reply) => {
    answer(new AppError("not_found"), request, reply, options);
  });
}

/** What fastify calls for a URL that it can't decode; the error handler never sees those. */
export function answerBadUrl(_error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  const error = new AppError("not_found");
  void reply.code(error.status).header("x-request-id", request.id).send(errorBody(error, request.id));
}

/** Answers what Node's HTTP parser refused, and closes: nothing that follows on such a connection can be trusted. */
export function answerParserError(error: Error & { readonly code?: string }, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const traceId = randomUUID();
  const refusal = new AppError(parserCodes.get(error.code ?? "") ?? "bad_http");
  const body = JSON.stringify(errorBody(refusal, traceId));
  const head = [
    `HTTP/1.1 ${refusal.status} ${refusal.code}`,
    "content-type: application/json; charset=utf-8",
    `content-length: ${Buffer.byteLength(body)}`,
    `x-request-id: ${traceId}`,
    "connection: close",
  ];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`);
  socket.destroySoon();
}

function answer(error: AppError, request: FastifyRequest, reply: FastifyReply, options: ErrorsOptions): void {
  const { log, emit, clock } = options;
  const { retryAfterSeconds, shouldRetry } = error.extras;
  if (error.code === "internal_error") {
    log.error(
      { trace_id: request.id, route: request.routeOptions.url, err: error.cause },
      "a request failed for a reason of our own",
    );
  }
  if (request.routeOptions.config.reportsItself !== true) {
    const { code, status } = error;
    emit({ type: "request.failed", at: clock.now(), traceId: request.id, ip: request.ip, code, status });
  }
  if (retryAfterSeconds !== undefined) reply.header("retry-after", Math.max(1, Math.ceil(retryAfterSeconds)));
  if (shouldRetry !== undefined) reply.header("x-should-retry", String(shouldRetry));
  if (error.status === 401) reply.header("www-authenticate", "Bearer");
  // The rest of a refused body is not worth reading.
  if (error.status === 413 || error.status === 408) reply.header("connection", "close");
  void reply
    .code(error.status)
    .type("application/json; charset=utf-8")
    .send(JSON.stringify(errorBody(error, request.id)));
}

function toAppError(error: FastifyError): AppError {
  if (error instanceof AppError) return error;
  if (hasZodFastifySchemaValidationErrors(error)) {
    const [first] = error.validation;
    const param = first?.instancePath.slice(1).replaceAll("/", ".") ?? "";
    const where = param === "" ? "" : `${param}: `;
    return new AppError("invalid_request", {
      message: `${where}${first?.message ?? error.message}`,
      ...(param === "" ? {} : { param }),
    });
  }
  const code = fastifyCodes.get(error.code);
  if (code !== undefined) return new AppError(code);
  if (error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500) {
    return new AppError("bad_http", { cause: error });
  }
  return new AppError("internal_error", { cause: error });
}
