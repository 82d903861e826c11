import type { OutgoingHttpHeaders } from "node:http";
import type {
  FastifyError,
  FastifyInstance,
  FastifyReply,
  FastifyRequest,
  FastifySchemaValidationError,
} from "fastify";
import { hasZodFastifySchemaValidationErrors } from "fastify-type-provider-zod";
import { plainIssue } from "../../lib/plain-issue.ts";
import { errorBodyFor } from "../anthropic-clients.ts";
import { allowPage, type Cors } from "./cors.ts";
import { version } from "../../version.ts";
import { AppError, type ErrorCode } from "../../errors.ts";
import type { Emit, RouteGroup } from "../../events/catalogue.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { routedPath } from "../../lib/request-target.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** The body of this route's errors, if the path doesn't determine it. */
    errorBody?: (error: AppError, traceId: string) => object;
    /** Whether there is nothing at this address with this method. Such a route is not among the methods that it takes. */
    refuses?: (request: FastifyRequest) => boolean;
    /** What the route is for: worked out once, when the route is registered. */
    routeGroup?: RouteGroup;
  }
  interface FastifyRequest {
    /** Set by a handler that reports its failures itself from then on. */
    reported: boolean;
  }
}

/** Fastify's own errors, as codes of the table. */
const fastifyCodes: ReadonlyMap<string, ErrorCode> = new Map<string, ErrorCode>([
  ["FST_ERR_CTP_BODY_TOO_LARGE", "body_too_large"],
  ["FST_ERR_CTP_INVALID_MEDIA_TYPE", "unsupported_media_type"],
  ["FST_ERR_CTP_EMPTY_JSON_BODY", "invalid_json"],
  ["FST_ERR_CTP_INVALID_CONTENT_LENGTH", "bad_http"],
  ["FST_ERR_BAD_URL", "not_found"],
]);

interface RequestCountOptions {
  readonly emit: Emit;
  readonly clock: Clock;
}

interface ErrorsOptions {
  readonly log: Log;
  readonly reportRefusal: ReportRefusal;
  readonly cors: () => Cors;
}

/** How long to read the rest of a refused request before closing its connection, in ms. */
const lingerMs = 5_000;

/** Whether the gateway has the request: it emits one event for each, whatever the outcome. */
function isCountedByGateway({ reported, routeOptions }: FastifyRequest): boolean {
  return reported && routeOptions.config.routeGroup === "api";
}

/** Counts successful responses. Errors are counted when they are sent, chats by their own event. */
export function registerRequestCount(app: FastifyInstance, { emit, clock }: RequestCountOptions): void {
  app.addHook("onResponse", (request, reply, done) => {
    if (!isCountedByGateway(request) && reply.statusCode < 400) {
      const route = request.routeOptions.config.routeGroup ?? "other";
      const status = reply.statusCode;
      emit({
        type: "request.finished",
        at: clock.now(),
        traceId: request.id,
        w3cTraceId: request.trace?.traceId,
        ip: request.ip,
        route,
        code: "ok",
        status,
        durationMs: reply.elapsedTime,
      });
    }
    done();
  });
}

/** The one place where errors become responses. Register routes after it. */
export function registerErrors(app: FastifyInstance, options: ErrorsOptions): void {
  const allowedMethods = collectAllowedMethods(app);
  app.addHook("onRoute", (route) => {
    route.config = { ...route.config, routeGroup: routeGroupOf(route.url) };
  });
  app.decorateRequest("reported", false);
  app.setErrorHandler((error: FastifyError, request, reply) => {
    respond(toAppError(error, request), request, reply, options);
  });
  // Before the body is read.
  app.addHook("onRequest", (request, _reply, next) => {
    if (request.is404 || request.routeOptions.config.refuses?.(request) === true)
      next(nothingThere(request, allowedMethods));
    else next();
  });
}

/** Handles a URL that fastify can't decode; hooks and the error handler never see those. */
export function createBadUrlHandler(options: ErrorsOptions) {
  return (_error: FastifyError, request: FastifyRequest, reply: FastifyReply): void => {
    reply.headers({ "x-request-id": request.id, "x-proxy-version": version });
    allowPage(options.cors(), request.raw, reply.raw);
    // Nothing else would bound how long its body may take.
    reply.header("connection", "close");
    respond(new AppError("not_found"), request, reply, options);
  };
}

function nothingThere({ raw: { url = "" } }: FastifyRequest, allowedMethods: AllowedMethods): AppError {
  const path = routedPath(url);
  const allow = allowedMethods(path).join(", ");
  if (allow !== "") {
    return new AppError("method_not_allowed", { message: `This address takes ${allow} only.`, headers: { allow } });
  }
  if (!/^(\/v1)?\/responses\//.test(path)) return new AppError("not_found");
  return new AppError("not_found", {
    message: "Responses are not kept here: there is nothing to read, cancel or delete. POST /v1/responses makes one.",
  });
}

function respond(
  error: AppError,
  request: FastifyRequest,
  reply: FastifyReply,
  { log, reportRefusal }: ErrorsOptions,
): void {
  const { retryAfterSeconds, shouldRetry, headers = {} } = error.extras;
  const { url: route, config } = request.routeOptions;
  const bodyOf = config.errorBody ?? errorBodyFor(request.raw.url ?? "", request.headers);
  if (error.code === "internal_error") {
    log.error({ trace_id: request.id, route, err: error.cause }, "unexpected error while handling a request");
  }
  // Chats log it themselves.
  if (error.code === "storage_unavailable" && error.cause !== undefined && !isCountedByGateway(request)) {
    log.error({ trace_id: request.id, route, err: error.cause }, "a request failed because the storage is unavailable");
  }
  // A client that disconnected before its request was complete gets no response; errors of the HTTP parser are already
  // reported.
  const disconnected = request.raw.destroyed && !request.raw.complete;
  if (!disconnected && !isCountedByGateway(request)) {
    reportRefusal(error, {
      logged: request.reported,
      traceId: request.id,
      w3cTraceId: request.trace?.traceId,
      ip: request.ip,
      durationMs: reply.elapsedTime,
      route,
      user: request.account?.username,
      method: request.method,
      path: pathOf(request.url),
    });
  }
  if (typeof retryAfterSeconds === "number") reply.header("retry-after", Math.max(1, Math.ceil(retryAfterSeconds)));
  if (shouldRetry !== undefined) reply.header("x-should-retry", String(shouldRetry));
  for (const [name, value] of Object.entries(headers)) reply.header(name, value);
  if (error.status === 401) {
    // Otherwise coding agents try the same token ten times over minutes.
    reply.headers({ "www-authenticate": "Bearer", "x-should-retry": "false" });
  }
  // Fastify closes the connection after refusing a body. We read and discard the rest instead.
  if (error.status === 413 || error.status === 415 || error.code === "invalid_json") reply.removeHeader("connection");
  const body = JSON.stringify(bodyOf(error, request.id));
  reply.code(error.status).type("application/json; charset=utf-8");
  const closes = !reply.raw.shouldKeepAlive || reply.getHeader("connection") === "close";
  if (closes && !request.raw.complete && !disconnected) sendAndReadOn(request, reply, body);
  else void reply.send(body);
}

/**
 * Responds to a request whose body is still arriving, on a connection that closes afterwards. Closing with unread bytes
 * resets the connection, and the client would never see the error; so the rest is read and discarded first, for a
 * while.
 */
function sendAndReadOn(request: FastifyRequest, reply: FastifyReply, body: string): void {
  const { raw: incoming } = request;
  const { raw: response } = reply;
  const end = (): void => {
    clearTimeout(timer);
    response.end();
  };
  const timer = setTimeout(end, lingerMs).unref();
  reply.hijack();
  response.once("error", end);
  response.writeHead(reply.statusCode, {
    ...(reply.getHeaders() as OutgoingHttpHeaders),
    "content-length": Buffer.byteLength(body),
    connection: "close",
  });
  response.write(body);
  incoming.once("close", end);
  incoming.resume();
}

/** Without the query and without control characters for a terminal. */
function pathOf(url: string): string {
  const end = url.indexOf("?");
  return (end === -1 ? url : url.slice(0, end)).slice(0, 200).replace(/[^\x20-\x7e]/g, "?");
}

function toAppError(error: FastifyError, { routeOptions: { bodyLimit } }: FastifyRequest): AppError {
  if (error instanceof AppError) return error;
  if (hasZodFastifySchemaValidationErrors(error)) {
    const [first] = error.validation;
    const param = paramOf(first);
    const where = param === "" ? "" : `${param}: `;
    return new AppError("invalid_request", {
      message: `${where}${plainIssue(first?.message ?? error.message)}`,
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

/** The invalid field, in dot notation; "" for the whole body. An unknown field is named itself, not its parent. */
function paramOf(issue: FastifySchemaValidationError | undefined): string {
  const path = issue?.instancePath.slice(1).split("/") ?? [];
  const unknown = issue?.keyword === "unrecognized_keys" ? (issue.params.keys as readonly string[]) : [];
  return [...path, ...unknown.slice(0, 1)].filter((step) => step !== "").join(".");
}

/** The refused request. Nothing of its content: a query, a header or a body may contain a secret. */
interface RefusedRequest {
  readonly traceId: string;
  readonly w3cTraceId?: string | undefined;
  /** ms since its arrival. */
  readonly durationMs?: number;
  /** The client's address. */
  readonly ip: string;
  /** The route's pattern, as in the code; undefined if no route matched. */
  readonly route?: string | undefined;
  readonly user?: string | undefined;
  /** Only if no route matched: a client that gets 404 most likely has a wrong base URL. */
  readonly method?: string | undefined;
  /** Path of the URL, without the query, which may contain a secret; at most 200 characters. */
  readonly path?: string | undefined;
  /** Whether the handler logs its failures itself: then it is only counted. */
  readonly logged?: boolean;
}

/** Reports a refusal to operators: one line in the log, one event. */
export type ReportRefusal = (error: AppError, request: RefusedRequest) => void;

/** For requests that nothing else reports. Chats and logins have their own events. */
export function createReportRefusal(options: {
  readonly log: Log;
  readonly emit: Emit;
  readonly clock: Clock;
}): ReportRefusal {
  const { log, emit, clock } = options;
  return ({ code, status }, { traceId, w3cTraceId, ip, durationMs, route, user, method, path, logged = false }) => {
    const base = { at: clock.now(), traceId, w3cTraceId, ip, durationMs };
    emit({ type: "request.finished", ...base, route: routeGroupOf(route), code, status });
    if (logged) return;
    const where = route === undefined ? { method, path } : { route };
    log.info({ event: "request.failed", trace_id: traceId, ip, user, ...where, code, status }, "request refused");
  };
}

/**
 * The group of a route.
 * @param route the route's pattern; undefined if there is none
 */
export function routeGroupOf(route: string | undefined): RouteGroup {
  if (route === undefined) return "other";
  const [first = "", second = ""] = route
    .replace(/^\/(v1|beta|anthropic\/v1)(?=\/)/, "")
    .split("/")
    .slice(1);
  if (first === "auth" || first === "admin" || first === "models" || first === "panel") return first;
  return opsPaths.has(first) && second === "" ? "ops" : "api";
}

const opsPaths: ReadonlySet<string> = new Set(["healthz", "livez", "readyz", "metrics", "openapi.json", "docs"]);

/** The methods of the routes at a path; none if there are no routes. */
type AllowedMethods = (path: string) => readonly string[];

/**
 * Records all routes registered after it. Fastify itself treats a known path with another method as an unknown path.
 * @returns a function that takes a path as `routedPath` returns it
 */
function collectAllowedMethods(app: FastifyInstance): AllowedMethods {
  const byPattern = new Map<string, { readonly steps: readonly string[]; readonly methods: Set<string> }>();
  app.addHook("onRoute", ({ url, method, config }) => {
    if (config?.refuses !== undefined) return;
    const known = byPattern.get(url) ?? { steps: url.split("/"), methods: new Set() };
    for (const one of typeof method === "string" ? [method] : method) known.methods.add(one);
    byPattern.set(url, known);
  });
  return (path) => {
    const steps = path.split("/");
    const found = new Set<string>();
    for (const { steps: pattern, methods } of byPattern.values()) {
      if (matches(pattern, steps)) for (const method of methods) found.add(method);
    }
    return [...found].sort();
  };
}

/** Whether a path matches a pattern, in which `:name` stands for any segment. */
function matches(pattern: readonly string[], steps: readonly string[]): boolean {
  if (steps.length !== pattern.length) return false;
  return pattern.every((part, index) => part === steps[index] || (part.startsWith(":") && steps[index] !== ""));
}
