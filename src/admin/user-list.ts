import type { Account, Role } from "../identity/account-schema.ts";
import { accountState, type AccountState } from "../identity/account-state.ts";
import type { AccountStore } from "../identity/files/account-store.ts";

/** Filters and page position. */
export interface UserQuery {
  /** The last name of the previous page; it need not exist any more. */
  readonly cursor?: string | undefined;
  /** Maximum number of users. */
  readonly limit: number;
  /** Part of the name. */
  readonly search?: string | undefined;
  readonly tier?: string | undefined;
  readonly role?: Role | undefined;
  readonly state?: AccountState | undefined;
}

/** Users ordered by name. */
export interface UserPage {
  readonly users: readonly Account[];
  /** Start of the next page; null if there is none. */
  readonly nextCursor: string | null;
}

/**
 * One page of users. The names are sorted already, so a page costs a search for its start and one check per user until
 * it is full.
 *
 * @param now ms since the epoch
 */
export function listUsers(accounts: Pick<AccountStore, "names" | "get">, query: UserQuery, now: number): UserPage {
  const { cursor, limit, tier, role, state } = query;
  const search = query.search?.toLowerCase() ?? "";
  const names = accounts.names();
  const users: Account[] = [];
  for (let at = cursor === undefined ? 0 : placeAfter(names, cursor); at < names.length; at++) {
    const name = names[at] ?? "";
    if (!name.includes(search)) continue;
    const account = accounts.get(name);
    if (account === undefined) continue;
    if (tier !== undefined && account.quota_tier !== tier) continue;
    if (role !== undefined && !account.roles.includes(role)) continue;
    if (state !== undefined && accountState(account, now) !== state) continue;
    // One more than requested: only then is there a next page.
    if (users.length === limit) return { users, nextCursor: users.at(-1)?.username ?? null };
    users.push(account);
  }
  return { users, nextCursor: null };
}

/** The index of the first name after `name`, by binary search. */
function placeAfter(names: readonly string[], name: string): number {
  let [low, high] = [0, names.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((names[middle] ?? "") <= name) low = middle + 1;
    else high = middle;
  }
  return low;
}
