import type { Account } from "../identity/account-schema.ts";
import type { AccountStore } from "../identity/files/account-store.ts";
import { checkUserName } from "../identity/user-name.ts";
import { AppError } from "../errors.ts";

/**
 * The account that an administrator names.
 *
 * @throws AppError `invalid_request` for an invalid user name, `not_found`
 */
export function findUser(accounts: Pick<AccountStore, "get">, name: string): Account {
  const account = accounts.get(checkUserName(name));
  if (account === undefined) throw new AppError("not_found", { message: `There is no user "${name}".` });
  return account;
}
