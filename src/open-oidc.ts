import type { Admin } from "./admin/open-admin.ts";
import { createOidcAccounts, type OidcAccounts, type OidcAccountsOptions } from "./admin/oidc-accounts.ts";
import type { Env } from "./config/load.ts";
import { readClientSecret } from "./config/oidc-secrets.ts";
import type { Config } from "./config/schema.ts";
import { createOidcIssuers, type OidcIssuers } from "./identity/oidc/issuers.ts";

/** Logins through identity providers. */
export interface Oidc {
  readonly oidcIssuers: OidcIssuers;
  readonly oidcAccounts: OidcAccounts;
}

/** Creates the logins of [[oidc]] in force. No issuer is asked for anything before somebody logs in. */
export function openOidc(
  options: Omit<OidcAccountsOptions, "groupAdmin" | "holderOf"> & {
    readonly admin: Pick<Admin, "groups" | "holderOf">;
    /** The config in force. */
    readonly config: () => Pick<Config, "oidc" | "panel">;
    readonly env: Env;
    /** The folder for relative files of client secrets. */
    readonly folder: string;
  },
): Oidc {
  const { config, env, folder, clock, log, admin } = options;
  return {
    oidcIssuers: createOidcIssuers({
      configs: () => config().oidc,
      publicUrl: () => config().panel.public_url,
      secretOf: (issuer) => readClientSecret(issuer, env, folder),
      monotonic: () => clock.monotonic(),
      log,
    }),
    oidcAccounts: createOidcAccounts({ ...options, groupAdmin: admin.groups, holderOf: admin.holderOf }),
  };
}
