import type { Account, Role } from "../identity/account-schema.ts";
import { accountState, type AccountState } from "../identity/account-state.ts";
import type { AccountStore } from "../identity/files/account-store.ts";

/** Which users, and from where on. */
export interface UserQuery {
  /** The last name of the page before; it need not exist any more. */
  readonly cursor?: string | undefined;
  /** At the most so many. */
  readonly limit: number;
  /** Part of the name. */
  readonly search?: string | undefined;
  readonly tier?: string | undefined;
  readonly role?: Role | undefined;
  readonly state?: AccountState | undefined;
}

/** Users in the order of their names. */
export interface UserPage {
  readonly users: readonly Account[];
  /** Where the next page begins; null where there is none. */
  readonly nextCursor: string | null;
}

/**
 * One page of users. The names are in order already, so a page costs a search for its begin and a look at each user
 * until it is full.
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
    // One more than asked for: only then is there a next page.
    if (users.length === limit) return { users, nextCursor: users.at(-1)?.username ?? null };
    users.push(account);
  }
  return { users, nextCursor: null };
}

/** The index of the first name after `name`, by halves. */
function placeAfter(names: readonly string[], name: string): number {
  let [low, high] = [0, names.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((names[middle] ?? "") <= name) low = middle + 1;
    else high = middle;
  }
  return low;
}
