import type { FastifyInstance, FastifyRequest } from "fastify";
import { AppError } from "../../errors.ts";
import type { Emit } from "../../events/catalogue.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Overload } from "../../limits/overload.ts";
import type { PermitRules } from "../../limits/permit-rules.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Whether an overloaded proxy refuses the route's requests: those that cost much, and can be sent again. */
    sheds?: boolean;
  }
}

interface SheddingOptions {
  readonly overload: Overload;
  readonly rules: () => Pick<PermitRules, "rankOf" | "ranks">;
  /** Least Retry-After, in seconds. */
  readonly retryAfterSeconds: () => number;
  readonly emit: Emit;
  readonly clock: Clock;
  /** A number in [0, 1), so that those who were refused together don't come back together. */
  readonly random: () => number;
}

/** Most seconds that are added to Retry-After. */
const jitterSeconds = 2;

/**
 * Refuses requests of an overloaded proxy with 503 before their body is read, those of the lightest tiers first. One half
 * is called before authentication, where everything is refused, or nobody is known; the other after it.
 */
export function createShedding(options: SheddingOptions) {
  const { overload, rules, retryAfterSeconds, emit, clock, random } = options;

  function refuse(request: FastifyRequest): AppError {
    const user = request.account?.username ?? "";
    const rule = "overload";
    emit({ type: "rate_limit.rejected", at: clock.now(), traceId: request.id, ip: request.ip, user, rule });
    return new AppError("proxy_overloaded", { retryAfterSeconds: retryAfterSeconds() + jitterSeconds * random() });
  }

  return {
    beforeAuthentication(app: FastifyInstance): void {
      app.addHook("onRequest", (request, _reply, next) => {
        const { sheds, access } = request.routeOptions.config;
        if (sheds !== true || overload.level() === 0) next();
        else if (overload.level() >= 1) next(refuse(request));
        // A login has no tier yet.
        else if (access === "public" && overload.sheds(0, rules().ranks)) next(refuse(request));
        else next();
      });
    },
    afterAuthentication(app: FastifyInstance): void {
      app.addHook("onRequest", (request, _reply, next) => {
        const { account } = request;
        if (request.routeOptions.config.sheds !== true || account === null) {
          next();
          return;
        }
        const { rankOf, ranks } = rules();
        if (overload.sheds(rankOf(account.quota_tier), ranks)) next(refuse(request));
        else next();
      });
    },
  };
}
