import type { Users } from "../identity/users.ts";
import type { RateLimiter, RateLimitState, RateRuleStatus } from "../limits/rate-limiter.ts";
import type { Risk } from "../risk/risk.ts";
import { findUser } from "./find-user.ts";

/** Whose state is asked for. */
interface RateQuery {
  readonly user: string;
  /** The group that a request would count for. */
  readonly group?: string | undefined;
  /** Absent: rules for some models, and by model, are left out. */
  readonly model?: string | undefined;
}

/** What operators can see of the rates. */
export interface RateOperations {
  rules(): Promise<readonly RateRuleStatus[]>;
  /** What a request of a user would find. Throws AppError not_found, and invalid_request for an invalid name. */
  statesOf(query: RateQuery): Promise<readonly RateLimitState[]>;
}

export function createRateOperations(options: {
  readonly rateLimiter: Pick<RateLimiter, "rules" | "statesOf">;
  readonly users: Pick<Users, "get">;
  readonly risk: Pick<Risk, "trustOf">;
}): RateOperations {
  const { rateLimiter, users, risk } = options;
  return {
    rules: async () => rateLimiter.rules(),
    async statesOf({ user, group = null, model = "" }) {
      const account = await findUser(users, user);
      const states = await rateLimiter.statesOf({
        requestId: "",
        user: account.username,
        tier: account.quota_tier,
        group,
        apiKey: null,
        ip: "",
        model,
        upstreamModel: model,
        providers: [],
        tokens: 1,
        outputTokens: 1,
        isOwnBound: true,
        factor: risk.trustOf(account).rate,
      });
      const hidden = model === "" ? ["address", "model"] : ["address"];
      const rules = await rateLimiter.rules();
      const shown = new Set(
        rules.filter(({ by }) => !by.some((scope) => hidden.includes(scope))).map(({ name }) => name),
      );
      return states.filter(({ rule }) => shown.has(rule));
    },
  };
}
