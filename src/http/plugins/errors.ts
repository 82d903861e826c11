import type {
  FastifyError,
  FastifyInstance,
  FastifyReply,
  FastifyRequest,
  FastifySchemaValidationError,
} from "fastify";
import { hasZodFastifySchemaValidationErrors } from "fastify-type-provider-zod";
import { AppError, errorBody, type ErrorCode } from "../../errors.ts";
import type { Log } from "../../lib/log.ts";
import type { TellRefusal } from "../tell-refusal.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** The body of this route's errors, where it isn't ours. */
    errorBody?: (error: AppError, traceId: string) => object;
  }
  interface FastifyRequest {
    /** Set by a handler that tells of its failures itself, from then on. */
    reported: boolean;
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

interface ErrorsOptions {
  readonly log: Log;
  readonly tell: TellRefusal;
}

/** One place where errors become answers. */
export function registerErrors(app: FastifyInstance, options: ErrorsOptions): void {
  app.decorateRequest("reported", false);
  app.setErrorHandler((error: FastifyError, request, reply) => {
    answer(toAppError(error, request), request, reply, options);
  });
  // Before anybody reads the body.
  app.addHook("onRequest", (request, _reply, next) => {
    if (request.is404) next(new AppError("not_found"));
    else next();
  });
}

/** Makes the answer to a URL that fastify can't decode; hooks and the error handler never see those. */
export function createBadUrlAnswer(options: ErrorsOptions) {
  return (_error: FastifyError, request: FastifyRequest, reply: FastifyReply): void => {
    reply.header("x-request-id", request.id);
    answer(new AppError("not_found"), request, reply, options);
  };
}

function answer(error: AppError, request: FastifyRequest, reply: FastifyReply, { log, tell }: ErrorsOptions): void {
  const { retryAfterSeconds, shouldRetry, headers = {} } = error.extras;
  const { url: route, config } = request.routeOptions;
  const bodyOf = config.errorBody ?? errorBody;
  if (error.code === "internal_error") {
    log.error({ trace_id: request.id, route, err: error.cause }, "a request failed for a reason of our own");
  }
  // Whoever left before the request was complete gets no answer; and what the parser refused has been told of.
  const left = request.raw.destroyed && !request.raw.complete;
  if (!request.reported && !left) {
    tell(error, { traceId: request.id, ip: request.ip, route, user: request.account?.username });
  }
  if (retryAfterSeconds !== undefined) reply.header("retry-after", Math.max(1, Math.ceil(retryAfterSeconds)));
  if (shouldRetry !== undefined) reply.header("x-should-retry", String(shouldRetry));
  for (const [name, value] of Object.entries(headers)) reply.header(name, value);
  if (error.status === 401) reply.header("www-authenticate", "Bearer");
  // Fastify closes behind a body that it has refused. Where the rest is still on its way that is a reset, and the client
  // would never learn why. It is read and thrown away instead, for server.request_seconds at most.
  if (error.status === 413 || error.code === "invalid_json") reply.removeHeader("connection");
  void reply
    .code(error.status)
    .type("application/json; charset=utf-8")
    .send(JSON.stringify(bodyOf(error, request.id)));
}

function toAppError(error: FastifyError, { routeOptions: { bodyLimit } }: FastifyRequest): AppError {
  if (error instanceof AppError) return error;
  if (hasZodFastifySchemaValidationErrors(error)) {
    const [first] = error.validation;
    const param = paramOf(first);
    const where = param === "" ? "" : `${param}: `;
    return new AppError("invalid_request", {
      message: `${where}${first?.message ?? error.message}`,
      ...(param === "" ? {} : { param }),
    });
  }
  const code = fastifyCodes.get(error.code);
  if (code === "body_too_large") {
    return new AppError(code, { message: `The body is too large: this route takes ${bodyLimit} bytes.` });
  }
  if (code !== undefined) return new AppError(code);
  if (error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500) {
    return new AppError("bad_http", { cause: error });
  }
  return new AppError("internal_error", { cause: error });
}

/** The field at fault, in dot notation; "" where it is the whole. An unknown field is named itself, not what it is in. */
function paramOf(issue: FastifySchemaValidationError | undefined): string {
  const path = issue?.instancePath.slice(1).split("/") ?? [];
  const unknown = issue?.keyword === "unrecognized_keys" ? (issue.params.keys as readonly string[]) : [];
  return [...path, ...unknown.slice(0, 1)].filter((step) => step !== "").join(".");
}
