import { z } from "zod";
import { roles } from "../identity/roles.ts";
import type { PasswordLogin } from "./security-schema.ts";
import { plainName, plainPath } from "./value-schemas.ts";

const variable = z
  .string()
  .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "the name of an environment variable, which holds the client secret");

const issuerUrl = z
  .string()
  .max(500)
  .refine((text) => isFit(text), "expected https://… without a user name, a query or a fragment; http://… on loopback");

/** Where in the claims a value stands: names with a dot between, as in `realm_access.roles`. */
const claimPath = z
  .string()
  .max(200)
  .regex(/^[^.\s]+(\.[^.\s]+)*$/, "the path of a claim, such as groups or realm_access.roles");

const rule = {
  claim: claimPath.describe("Path of a claim of the ID token, or else of userinfo, such as `realm_access.roles`."),
  value: z
    .union([z.string().min(1).max(500), z.boolean(), z.number()])
    .describe("What the claim must be, or have among its values."),
};

const issuerSection = z.strictObject({
  name: plainName.describe("Part of the addresses: /panel/api/oidc/NAME/callback."),
  title: z.string().min(1).max(80).optional().describe("Text of the button. Default: the name."),
  issuer: issuerUrl.describe("The identity provider, as its discovery document calls itself."),
  client_id: z.string().min(1).max(500).describe("As the proxy is registered there."),
  client_secret_env: variable.optional().describe("Environment variable of the client secret."),
  client_secret_file: plainPath
    .optional()
    .describe("File with the client secret, relative to this file; without either the proxy is a public client."),
  scopes: z
    .array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, "a scope without blanks"))
    .max(30)
    .default(["openid", "profile", "email"])
    .refine((scopes) => scopes.includes("openid"), "expected openid among them")
    .describe("Scopes that are asked for."),
  username_claim: claimPath.default("preferred_username").describe("Claim with the name of a new user."),
  create_users: z
    .enum(["never", "matched", "always"])
    .default("never")
    .describe(
      "Whether a first login makes a user: `never`; only where a rule for roles or groups fits (`matched`); `always`.",
    ),
  tier: plainName.optional().describe("Tier of users made that way. Default: the first tier."),
  roles: z
    .array(
      z.strictObject({
        ...rule,
        role: z.enum(roles).describe("The role of users for whom it fits."),
      }),
    )
    .max(100)
    .default([])
    .describe(
      "If there are any, each login sets the roles of its user to those that fit, or to `user` if none does. Otherwise the proxy's administrators set them.",
    ),
  groups: z
    .array(z.strictObject({ ...rule, group: plainName.describe("The group whose member such a user becomes.") }))
    .max(1000)
    .default([])
    .describe(
      "Each login makes its user a member of the groups that fit, and of none of the others named here. Groups made by administrators only.",
    ),
});

/** [[oidc]]: identity providers through which people log in to the panel. */
export const oidcSection = z.array(issuerSection).max(20);

export type OidcIssuerConfig = Readonly<z.output<typeof issuerSection>>;

interface Checked {
  readonly oidc: readonly OidcIssuerConfig[];
  readonly panel: { readonly enabled: boolean; readonly public_url?: string | undefined };
  readonly quota: { readonly tiers: Readonly<Record<string, unknown>> };
  readonly groups: Readonly<Record<string, unknown>>;
  readonly security: { readonly password_login: PasswordLogin };
}

/** What of [[oidc]] depends on other sections. */
export function checkOidc({ oidc, panel, quota, groups, security }: Checked, ctx: z.RefinementCtx): void {
  const refuse = (path: readonly (string | number)[], message: string): void => {
    ctx.addIssue({ code: "custom", path: [...path], message });
  };
  const names = oidc.map(({ name }) => name);
  const tiers = Object.keys(quota.tiers);
  oidc.forEach((issuer, index) => {
    const first = names.indexOf(issuer.name);
    if (first !== index) refuse(["oidc", index, "name"], `expected another name than oidc.${first} has`);
    if (issuer.tier !== undefined && !tiers.includes(issuer.tier)) {
      refuse(["oidc", index, "tier"], `expected a tier: ${tiers.join(", ")}`);
    }
    if (issuer.client_secret_env !== undefined && issuer.client_secret_file !== undefined) {
      refuse(["oidc", index, "client_secret_file"], "expected either client_secret_file or client_secret_env");
    }
    issuer.groups.forEach(({ group }, at) => {
      if (!Object.hasOwn(groups, group)) return;
      const message = "expected a group that administrators have made: the members of this one stand in config.toml";
      refuse(["oidc", index, "groups", at, "group"], message);
    });
  });
  if (oidc.length > 0 && panel.public_url === undefined) {
    refuse(
      ["panel", "public_url"],
      "expected the address at which browsers reach the proxy, which [[oidc]] needs, such as https://llm.example",
    );
  }
  if (security.password_login === "off" && (oidc.length === 0 || !panel.enabled)) {
    const message = 'expected "all" or "admins": without [[oidc]] and the panel nobody could log in';
    refuse(["security", "password_login"], message);
  }
}

function isFit(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, hostname, username, password, search, hash } = new URL(text);
  if (username + password + search + hash !== "") return false;
  if (protocol !== "http:") return protocol === "https:";
  return /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/.test(hostname);
}
