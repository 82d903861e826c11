import { AppError } from "../errors.ts";
import type { Account } from "./account-schema.ts";
import type { AccessClaims } from "./claims.ts";

/**
 * Makes the check that every request with a token passes: the account exists, is active, and has had no new password
 * and not been disabled since the login. Synchronous; one Map lookup.
 *
 * @param findAccount the store's `get`
 * @returns a function from checked claims to the account. Throws AppError `account_disabled` or `invalid_token`
 */
export function createAccess(findAccount: (name: string) => Account | undefined): (claims: AccessClaims) => Account {
  return (claims) => {
    const account = findAccount(claims.sub);
    if (account === undefined) throw new AppError("invalid_token");
    // Before the version: disabling raises it, and the person should learn why the token has stopped working.
    if (!account.is_active) throw new AppError("account_disabled");
    if (account.token_version !== claims.ver) throw new AppError("invalid_token");
    return account;
  };
}
