import { createHash } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import type { Account } from "../identity/account-schema.ts";
import { hasSecondFactor } from "../identity/login/second-factor.ts";
import { viewOf } from "../identity/user-fields.ts";

/**
 * A strong entity tag (RFC 9110, 8.8.3), including its quotes: it changes with everything that is shown and with the
 * password, and reveals nothing of the hash.
 */
export function userEtag(account: Account): string {
  const text = JSON.stringify([viewOf(account), account.token_version, hasSecondFactor(account)]);
  return `"${createHash("sha256").update(text).digest("base64url").slice(0, 22)}"`;
}

/** The differences between two accounts, before and after. */
export interface UserDifference {
  readonly before: Readonly<Record<string, unknown>>;
  readonly after: Readonly<Record<string, unknown>>;
}

/** The fields of the view that differ. */
export function userDifference(before: Account, after: Account): UserDifference {
  const [was, is] = [Object.entries(viewOf(before)), Object.entries(viewOf(after))];
  const changed = is.filter(([, value], at) => !isDeepStrictEqual(value, was[at]?.[1])).map(([key]) => key);
  const part = (entries: readonly [string, unknown][]) =>
    Object.fromEntries(entries.filter(([key]) => changed.includes(key)));
  return { before: part(was), after: part(is) };
}
