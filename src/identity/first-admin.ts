import type { Users } from "./users.ts";
import { generatePassword } from "./passwords/new-password.ts";

/** The login of a new administrator, to be shown once. */
export interface FirstAdmin {
  readonly username: string;
  readonly password: string;
}

/**
 * Creates the account `admin` with a random password if there is no user file at all. An unreadable file counts as a
 * user: the proxy must not create a second way in beside it.
 *
 * @param tierNames the tiers of config.toml; `premium` is used if it exists, else the first
 */
export async function createFirstAdmin(
  users: Pick<Users, "names" | "problems" | "create">,
  tierNames: readonly string[],
): Promise<FirstAdmin | undefined> {
  if ((await users.names()).length > 0 || (await users.problems()).length > 0) return undefined;
  const tier = tierNames.includes("premium") ? "premium" : tierNames[0];
  if (tier === undefined) return undefined;
  const admin = { username: "admin", password: generatePassword() };
  await users.create({ ...admin, quota_tier: tier, roles: ["user", "admin"] });
  return admin;
}
