import { accountState } from "../account-state.ts";
import type { Account } from "../account-schema.ts";
import type { UserPage, UserQuery } from "../users.ts";
import type { AccountRecords } from "./account-records.ts";

/**
 * One page of users. The names are sorted already, so a page costs a search for its start and one check per user until
 * it is full.
 *
 * @param now ms since the epoch
 */
export function searchUsers(records: Pick<AccountRecords, "names" | "get">, query: UserQuery, now: number): UserPage {
  const { cursor, limit, tier, role, state } = query;
  const search = query.search?.toLowerCase() ?? "";
  const names = records.names();
  const users: Account[] = [];
  for (let at = cursor === undefined ? 0 : placeAfter(names, cursor); at < names.length; at++) {
    const name = names[at] ?? "";
    if (!name.includes(search)) continue;
    const account = records.get(name)?.account;
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
