import type { AppError } from "../errors.ts";
import type { Emit } from "../events/types.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";

/** Which request was refused. Nothing of its content: a URL, a header or a body may hold a secret. */
interface RefusedRequest {
  readonly traceId: string;
  /** The client's address. */
  readonly ip: string;
  /** The pattern of the route, as the code has it; undefined where there is none. */
  readonly route?: string | undefined;
  readonly user?: string | undefined;
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
  return ({ code, status }, { traceId, ip, route, user }) => {
    emit({ type: "request.failed", at: clock.now(), traceId, ip, code, status });
    log.info({ event: "request.failed", trace_id: traceId, ip, user, route, code, status }, "request refused");
  };
}
