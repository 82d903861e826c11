import { AppError } from "../errors.ts";
import type { Users } from "./users.ts";
import { generatePassword } from "./passwords/new-password.ts";

/** The login of a new administrator, to be shown once. */
export interface FirstAdmin {
  readonly username: string;
  readonly password: string;
}

/**
 * Creates the account `admin` with a random password if there is no user file at all. An unreadable file counts as a
 * user: the proxy must not create a second way in beside it. Of processes that start at once over one Redis, one makes it.
 *
 * @param tierNames the tiers of config.toml; `premium` is used if it exists, else the first
 */
export async function createFirstAdmin(
  users: Pick<Users, "names" | "problems" | "create">,
  tierNames: readonly string[],
): Promise<FirstAdmin | undefined> {
  const hasUsers = async (): Promise<boolean> =>
    (await users.names()).length > 0 || (await users.problems()).length > 0;
  if (await hasUsers()) return undefined;
  const tier = tierNames.includes("premium") ? "premium" : tierNames[0];
  if (tier === undefined) return undefined;
  const admin = { username: "admin", password: generatePassword() };
  try {
    await users.create({ ...admin, quota_tier: tier, roles: ["user", "admin"] });
  } catch (error) {
    const isTaken = error instanceof AppError && error.code === "conflict";
    if (isTaken && (await hasUsers())) return undefined;
    throw error;
  }
  return admin;
}
