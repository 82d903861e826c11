/*
 * The accounts of the ledger. That of a user has the user's name; that of a group has the group's behind an @, which no
 * user's name contains. What the members of a group use counts in both, each with its own limits.
 */

/** The format of user names, and so of their files. */
export const userName = /^[a-z0-9][a-z0-9_-]{0,31}$/;

/** The format of the accounts' names: those of users, and those of groups behind an @. */
export const accountName = /^@?[a-z0-9][a-z0-9_-]{0,31}$/;

/** The account of a group. */
export function groupAccount(group: string): string {
  return `@${group}`;
}

/** Whether an account is a group's. */
export function isGroupAccount(account: string): boolean {
  return account.startsWith("@");
}
