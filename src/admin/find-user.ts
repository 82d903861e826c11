import type { Account } from "../identity/account-schema.ts";
import type { Users } from "../identity/users.ts";
import { checkUserName } from "../identity/user-name.ts";
import { AppError } from "../errors.ts";

/**
 * The account that an administrator names.
 *
 * @throws AppError `invalid_request` for an invalid user name, `not_found`
 */
export async function findUser(users: Pick<Users, "get">, name: string): Promise<Account> {
  const account = await users.get(checkUserName(name));
  if (account === undefined) throw new AppError("not_found", { message: `There is no user "${name}".` });
  return account;
}
