import { AppError } from "../errors.ts";
import type { Users } from "../identity/users.ts";
import type { Risk } from "../risk/risk.ts";
import type { RiskView } from "../risk/trust-rules.ts";
import type { Actor, Audit } from "./audit.ts";
import { findUser } from "./find-user.ts";

/** What operators see of the trust steps, and how they overrule them. */
export interface RiskAdmin {
  readonly enabled: () => boolean;
  readonly stepNames: () => readonly string[];
  list(...query: Parameters<Risk["list"]>): Promise<ReturnType<Risk["list"]>>;
  /** Throws AppError `invalid_request`, `not_found`. */
  get(name: string): Promise<RiskView>;
  /**
   * Pins a user to a step, whatever the score; null removes the pin, and the step that the user has earned applies again.
   * Audited, unless nothing changes. Throws AppError `invalid_request` for an unknown step, `not_found`,
   * `storage_unavailable`.
   */
  pin(actor: Actor, name: string, step: string | null, reason: string): Promise<RiskView>;
}

export function createRiskAdmin(options: {
  readonly risk: Risk;
  readonly users: Pick<Users, "get" | "update">;
  readonly audit: Audit;
}): RiskAdmin {
  const { risk, users, audit } = options;
  return {
    enabled: () => risk.enabled(),
    stepNames: () => risk.stepNames(),
    async list(query) {
      await risk.refresh();
      return risk.list(query);
    },
    async get(name) {
      const account = await findUser(users, name);
      await risk.refresh(name);
      return risk.view(account);
    },
    async pin(actor, name, step, reason) {
      if (step !== null && !risk.stepNames().includes(step)) {
        const message = `step: expected one of ${risk.stepNames().join(", ")}, or null; got ${JSON.stringify(step.slice(0, 100))}`;
        throw new AppError("invalid_request", { param: "step", message });
      }
      await findUser(users, name);
      let before: string | undefined;
      const account = await users.update(name, { trust_step: step }, (found) => {
        before = found.trust_step;
      });
      // In force at once, and not with the user's next request alone.
      await risk.notePin(account);
      if (before !== account.trust_step) {
        await audit.record(actor, {
          action: step === null ? "trust.unpinned" : "trust.pinned",
          user: name,
          before: { trust_step: before ?? null },
          after: { trust_step: step },
          reason,
        });
      }
      return risk.view(account);
    },
  };
}
