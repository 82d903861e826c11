import type { Config } from "../config/schema.ts";
import { createCredentialsAdmin, type CredentialsAdmin, type CredentialsAdminOptions } from "./credentials-admin.ts";
import { createProviderOperations, type ProviderOperations } from "./provider-operations.ts";
import { createQuotaAdmin, type QuotaAdmin, type QuotaAdminOptions } from "./quota-admin.ts";
import { createQuotaGrants, type QuotaGrants, type QuotaGrantsOptions } from "./quota-grants.ts";
import type { ProviderAdmin } from "../providers/provider-admin.ts";

/** All operations for operators, except on the users themselves. */
export interface Admin {
  readonly quota: QuotaAdmin;
  readonly grants: QuotaGrants;
  readonly credentials: CredentialsAdmin;
  readonly providers: ProviderOperations;
}

type AdminParts = Omit<QuotaAdminOptions, "currency"> &
  Omit<QuotaGrantsOptions, "quota"> &
  CredentialsAdminOptions & { readonly config: Pick<Config, "quota">; readonly providers: ProviderAdmin };

export function createAdmin({ config: { quota }, ...parts }: AdminParts): Admin {
  return {
    quota: createQuotaAdmin({ ...parts, currency: quota.currency }),
    grants: createQuotaGrants({ ...parts, quota }),
    credentials: createCredentialsAdmin(parts),
    providers: createProviderOperations(parts),
  };
}
