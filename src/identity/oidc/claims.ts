import type { OidcIssuerConfig } from "../../config/schema.ts";
import { isUserName } from "../user-name.ts";

/** What an identity provider says of somebody: the claims of the ID token, and those of userinfo. */
export interface Claims {
  readonly idToken: Readonly<Record<string, unknown>>;
  readonly userinfo: Readonly<Record<string, unknown>>;
}

type Rights = Pick<OidcIssuerConfig, "roles" | "groups">;
export type MappedRole = Rights["roles"][number]["role"];

/** Values of a claim that are compared; more are left out. */
const maxValues = 10_000;

/** The paths of all claims that decide something. */
export function claimPaths({ roles, groups, username_claim: name }: OidcIssuerConfig): readonly string[] {
  return [...new Set([...roles, ...groups].map(({ claim }) => claim).concat(name))];
}

/** The claim at a path in an object; a name may contain dots itself. undefined if there is none. */
export function valueAt(object: Readonly<Record<string, unknown>>, path: string): unknown {
  if (Object.hasOwn(object, path)) return object[path];
  let value: unknown = object;
  for (const name of path.split(".")) {
    if (typeof value !== "object" || value === null || Array.isArray(value) || !Object.hasOwn(value, name))
      return undefined;
    value = (value as Readonly<Record<string, unknown>>)[name];
  }
  return value;
}

/** The ID token's claim, which is signed; where it has none, that of userinfo. */
function claimOf({ idToken, userinfo }: Claims, path: string): unknown {
  return valueAt(idToken, path) ?? valueAt(userinfo, path);
}

function fits(claims: Claims, { claim, value }: { readonly claim: string; readonly value: unknown }): boolean {
  const found = claimOf(claims, claim);
  return Array.isArray(found) ? found.slice(0, maxValues).includes(value) : found === value;
}

/** The roles that the rules give, `user` if none does; undefined if there are no rules: others set the roles. */
export function rolesFrom({ roles }: Rights, claims: Claims): readonly MappedRole[] | undefined {
  if (roles.length === 0) return undefined;
  const given = new Set(roles.filter((rule) => fits(claims, rule)).map(({ role }) => role));
  return given.size === 0 ? ["user"] : [...given];
}

/** The groups of the rules, and whether one of them fits. */
export function groupsFrom({ groups }: Rights, claims: Claims): ReadonlyMap<string, boolean> {
  const member = new Map<string, boolean>();
  for (const rule of groups) member.set(rule.group, member.get(rule.group) === true || fits(claims, rule));
  return member;
}

/** Whether any rule fits. */
export function isMatched({ roles, groups }: Rights, claims: Claims): boolean {
  return [...roles, ...groups].some((rule) => fits(claims, rule));
}

/**
 * The name of a new user: the claim in lower case up to an @, with - for what no name may contain; undefined if that is
 * no name. Two people may get one name so: it never decides who somebody is.
 */
export function userNameFrom({ username_claim: path }: OidcIssuerConfig, claims: Claims): string | undefined {
  const claim = claimOf(claims, path);
  if (typeof claim !== "string") return undefined;
  const [local = ""] = claim.slice(0, 500).toLowerCase().split("@");
  const name = local.replace(/[^a-z0-9_-]/g, "-");
  return isUserName(name) ? name : undefined;
}
