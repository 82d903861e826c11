import type { AppError } from "../errors.ts";
import type { Emit, RouteGroup } from "../events/types.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";

/** Which request was refused. Nothing of its content: a query, a header or a body may hold a secret. */
interface RefusedRequest {
  readonly traceId: string;
  /** The client's address. */
  readonly ip: string;
  /** The pattern of the route, as the code has it; undefined where there is none. */
  readonly route?: string | undefined;
  readonly user?: string | undefined;
  /** Said only where there is no route: a client that gets 404 has most likely a wrong base URL. */
  readonly method?: string | undefined;
  /** Of the URL, without its query, which may hold a secret; at most 200 characters. */
  readonly path?: string | undefined;
  /** Whether its handler logs its failures itself: then it is only counted. */
  readonly logged?: boolean;
}

/** Tells operators of a refusal: one line in the log, one event. */
export type TellRefusal = (error: AppError, request: RefusedRequest) => void;

/** For the requests that nobody else tells of. Chats and logins have events of their own. */
export function createTellRefusal(options: {
  readonly log: Log;
  readonly emit: Emit;
  readonly clock: Clock;
}): TellRefusal {
  const { log, emit, clock } = options;
  return ({ code, status }, { traceId, ip, route, user, method, path, logged = false }) => {
    emit({ type: "request.finished", at: clock.now(), traceId, ip, route: routeGroupOf(route), code, status });
    if (logged) return;
    const where = route === undefined ? { method, path } : { route };
    log.info({ event: "request.failed", trace_id: traceId, ip, user, ...where, code, status }, "request refused");
  };
}

/** What a route is for. @param route the pattern of the route; undefined where there is none */
export function routeGroupOf(route: string | undefined): RouteGroup {
  if (route === undefined) return "other";
  const [first = "", second = ""] = route
    .replace(/^\/(v1|beta|anthropic\/v1)(?=\/)/, "")
    .split("/")
    .slice(1);
  if (first === "auth" || first === "admin" || first === "models") return first;
  return opsPaths.has(first) && second === "" ? "ops" : "api";
}

const opsPaths: ReadonlySet<string> = new Set(["healthz", "livez", "metrics", "openapi.json", "docs"]);
