import type { Account } from "../identity/account-schema.ts";
import type { Users } from "../identity/users.ts";
import type { Config, GrantConfig } from "../config/schema.ts";
import { AppError } from "../errors.ts";
import type { Clock } from "../lib/clock.ts";
import { createWallClock, instantOfToml } from "../lib/wall-clock.ts";
import type { QuotaLimit } from "../quota/ledger.ts";
import { limitName, metrics } from "../quota/metrics.ts";
import { createPeriods } from "../quota/periods.ts";
import type { Actor, Audit } from "./audit.ts";
import { findUser } from "./find-user.ts";
import type { GrantRequest } from "./quota-requests.ts";

/** A grant in force. `amount` of cost is in units of the currency. */
interface GrantInForce extends Omit<GrantConfig, "until"> {
  /** ms since the epoch; null: forever. */
  readonly until: number | null;
}

export interface QuotaGrants {
  /** The grants in force. */
  inForce(account: Account): readonly GrantInForce[];
  /**
   * Adds a grant to the user's file, and removes expired ones from it. Two concurrent calls both take effect.
   *
   * @throws AppError `not_found`, `invalid_request` (the user has no such limit, or `until` is in the past), `conflict`
   * (the file is invalid), `storage_unavailable`
   */
  add(actor: Actor, name: string, request: GrantRequest): Promise<void>;
}

export interface QuotaGrantsOptions {
  readonly users: Pick<Users, "get" | "update">;
  readonly limitsOf: (account: Account) => readonly QuotaLimit[];
  readonly quota: Pick<Config["quota"], "timezone" | "monthly_reset_day" | "currency">;
  readonly clock: Clock;
  readonly audit: Audit;
}

/** Temporary additions to users' limits. Needs only the users' files, so it works beside a server. */
export function createQuotaGrants({ users, limitsOf, quota, clock, audit }: QuotaGrantsOptions): QuotaGrants {
  const periodAt = createPeriods({ timezone: quota.timezone, monthlyResetDay: quota.monthly_reset_day });
  const { endOf, current } = createGrantTimes(quota.timezone, clock);

  return {
    inForce: (account) =>
      current(account).map((grant) => {
        const end = endOf(grant);
        return { ...grant, until: end === Infinity ? null : end };
      }),
    async add(actor, name, { until, currency, ...request }) {
      await findUser(users, name);
      const now = clock.now();
      if (until !== undefined && until.getTime() <= now) {
        throw new AppError("invalid_request", { param: "until", message: "until lies in the past." });
      }
      const end = until?.getTime() ?? periodAt(request.per, now).end;
      const grant: GrantConfig = {
        ...request,
        ...(metrics[request.metric].hasCurrency ? { currency: currency ?? quota.currency } : {}),
        ...(end === null ? {} : { until: new Date(end) }),
      };
      // In the store's queue, on the file as it is then: of two concurrent grants neither overwrites the other.
      await users.update(name, (account) => {
        checkHasLimit(limitsOf(account), grant);
        return { grants: [...current(account), grant] };
      });
      const { reason = "", ...after } = grant;
      const subject = `${grant.metric} per ${grant.per}`;
      await audit.record(actor, { action: "quota.granted", user: name, subject, before: null, after, reason });
    },
  };
}

/** Until when grants count. @param timezone quota.timezone */
export function createGrantTimes(timezone: string, clock: Clock) {
  const local = createWallClock(timezone);
  const endOf = ({ until }: GrantConfig): number => (until === undefined ? Infinity : instantOfToml(until, local));
  return {
    /** In ms since the epoch; Infinity: never. */
    endOf,
    /** The grants of an account that have not ended. */
    current: ({ grants = [] }: Account): readonly GrantConfig[] => grants.filter((grant) => endOf(grant) > clock.now()),
  };
}

/** A grant without a limit to add to would silently have no effect. */
function checkHasLimit(limits: readonly QuotaLimit[], { metric, per, currency }: GrantConfig): void {
  if (limits.some((limit) => limit.metric === metric && limit.per === per && limit.currency === currency)) return;
  const named = limits.map(limitName);
  const others = named.length === 0 ? "no limit at all" : `only ${named.join(", ")}`;
  const message = `The user has no limit of ${metric} per ${per} that a grant could add to, but ${others}.`;
  throw new AppError("invalid_request", { param: "metric", message });
}
