import { AppError } from "../errors.ts";
import type { Account } from "../identity/account-schema.ts";
import { isMember, type Group, type Groups } from "../identity/groups.ts";
import type { ApiKey } from "../identity/keys/api-key.ts";
import type { Awaitable } from "../lib/awaitable.ts";

/** Who asks, and for which group. */
export interface GroupRequest {
  /** The value of X-Group; null if there is none. */
  readonly groupHeader: string | null;
  readonly apiKey: Pick<ApiKey, "group"> | null;
  readonly account: Pick<Account, "username" | "service" | "default_group">;
}

const groupName = /^[a-z0-9][a-z0-9_-]{0,31}$/;

/**
 * The group that a request counts for: that of its API key, else the one that it names, else the user's default, else
 * the first of which the user is a member; null if there is none. A key of a group, and a service account, never fall
 * back to what their user may use alone.
 *
 * @throws AppError `group_not_allowed`, the same for a group that doesn't exist, so that nobody can find out which do;
 * `invalid_request` for what can't be a name
 */
export function chooseGroup(request: GroupRequest, groups: Pick<Groups, "get" | "ofUser">): Awaitable<Group | null> {
  const { groupHeader, apiKey, account } = request;
  if (groupHeader !== null && !groupName.test(groupHeader)) {
    const message = "X-Group must be the name of one group: lower-case letters, digits, - and _.";
    throw new AppError("invalid_request", { param: "X-Group", message });
  }
  const bound = apiKey?.group ?? (account.service === true ? account.default_group : undefined);
  if (bound !== undefined && groupHeader !== null && groupHeader !== bound) throw notAllowed();
  const name = bound ?? groupHeader;
  if (name !== null) {
    const found = groups.get(name);
    return found instanceof Promise ? found.then((group) => checked(group, account)) : checked(found, account);
  }
  const found = groups.ofUser(account.username);
  return found instanceof Promise ? found.then((all) => preferred(all, account)) : preferred(found, account);
}

function checked(group: Group | undefined, account: GroupRequest["account"]): Group {
  if (group === undefined || !isMember(group, account)) throw notAllowed();
  return group;
}

/** A default group that the user has left counts no more. */
function preferred(all: readonly Group[], { default_group: name }: GroupRequest["account"]): Group | null {
  return all.find((group) => group.name === name) ?? all[0] ?? null;
}

function notAllowed(): AppError {
  return new AppError("group_not_allowed", { param: "X-Group" });
}
