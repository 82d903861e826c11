import { type AlertOperations, type AlertOperationsOptions, createAlertOperations } from "./alert-operations.ts";
import type { Config } from "../config/schema.ts";
import type { Reloader } from "../config/reload.ts";
import { createConfigOperations, type ConfigOperations } from "./config-operations.ts";
import { createCredentialsAdmin, type CredentialsAdmin, type CredentialsAdminOptions } from "./credentials-admin.ts";
import { createNameHolder, type FreeNamesOptions, type NameHolder } from "./free-names.ts";
import { createGroupAdmin, type GroupAdmin, type GroupAdminOptions } from "./group-admin.ts";
import { createProviderOperations, type ProviderOperations } from "./provider-operations.ts";
import { createQuotaAdmin, type QuotaAdmin, type QuotaAdminOptions } from "./quota-admin.ts";
import type { Users } from "../identity/users.ts";
import { createQuotaGrants, type QuotaGrants, type QuotaGrantsOptions } from "./quota-grants.ts";
import { createRateOperations, type RateOperations } from "./rate-operations.ts";
import { type CodeAdmin, type CodeAdminOptions, createCodeAdmin } from "./code-admin.ts";
import { createRedemptions, type RedemptionOptions, type Redemptions } from "./redemptions.ts";
import { createRegistrations, type RegistrationOptions, type Registrations } from "./registrations.ts";
import type { RateLimiter } from "../limits/rate-limiter.ts";
import { createRiskAdmin, type RiskAdmin } from "./risk-admin.ts";
import type { Risk } from "../risk/risk.ts";
import type { ProviderAdmin } from "../providers/provider-admin.ts";

/** All operations for operators, except on the users themselves. */
export interface Admin {
  readonly quota: QuotaAdmin;
  readonly grants: QuotaGrants;
  readonly credentials: CredentialsAdmin;
  readonly providers: ProviderOperations;
  readonly rates: RateOperations;
  readonly config: ConfigOperations;
  readonly groups: GroupAdmin;
  readonly risk: RiskAdmin;
  readonly alerts: AlertOperations;
  readonly codes: CodeAdmin;
  readonly redemptions: Redemptions;
  readonly registrations: Registrations;
  /** Who has, or had, a name. */
  readonly holderOf: NameHolder;
}

type AdminParts = AlertOperationsOptions &
  Omit<QuotaAdminOptions, "currency"> &
  Omit<QuotaGrantsOptions, "quota"> &
  CredentialsAdminOptions &
  Omit<GroupAdminOptions, "config"> &
  Omit<CodeAdminOptions, "config"> &
  Omit<RedemptionOptions, "quota"> &
  Omit<RegistrationOptions, "security" | "holderOf" | "groupAdmin"> &
  Omit<FreeNamesOptions, "usageDays"> & {
    /** quota.timezone, monthly_reset_day and currency, which stay as they are. */
    readonly quota: QuotaGrantsOptions["quota"];
    /** The config in force. */
    readonly config: () => Config;
    readonly reloader: Reloader;
    readonly providers: ProviderAdmin;
    readonly rateLimiter: RateLimiter;
    readonly risk: Risk;
    readonly users: Pick<Users, "get" | "update">;
  };

export function createAdmin({ quota, ...parts }: AdminParts): Admin {
  const groups = createGroupAdmin(parts);
  const holderOf = createNameHolder({ ...parts, usageDays: () => parts.config().usage.keep_days });
  return {
    quota: createQuotaAdmin({ ...parts, currency: quota.currency }),
    grants: createQuotaGrants({ ...parts, quota }),
    credentials: createCredentialsAdmin(parts),
    providers: createProviderOperations(parts),
    rates: createRateOperations(parts),
    config: createConfigOperations(parts),
    groups,
    risk: createRiskAdmin(parts),
    alerts: createAlertOperations(parts),
    codes: createCodeAdmin(parts),
    redemptions: createRedemptions({ ...parts, quota }),
    registrations: createRegistrations({
      ...parts,
      groupAdmin: groups,
      holderOf,
      security: () => parts.config().security,
    }),
    holderOf,
  };
}
