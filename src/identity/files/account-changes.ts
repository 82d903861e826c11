import type { Account } from "../account-schema.ts";
import type { AccountFields } from "../user-fields.ts";
import type { AccountPatch } from "../users.ts";
import type { TomlChanges } from "./toml-edit.ts";

/**
 * The version that invalidates all tokens of the previous one. It follows the clock, in ms, so that a file that was
 * removed and recreated, or restored from a backup, doesn't revive its old tokens.
 *
 * @param now ms since the epoch
 */
export function nextTokenVersion(previous: number, now: number): number {
  return Math.max(previous + 1, Math.floor(now));
}

/**
 * The keys of the file that a patch changes.
 *
 * @param passwordHash the hash of the patch's password, if it has one
 */
export function changesOfPatch(
  account: Account,
  patch: AccountPatch,
  passwordHash: string | undefined,
  now: number,
): TomlChanges {
  const { password, ...fields } = patch;
  const endsSessions = password !== undefined || (patch.is_active === false && account.is_active);
  return {
    ...withoutNulls(fields),
    ...(passwordHash === undefined ? {} : { password_hash: passwordHash }),
    ...(endsSessions ? { token_version: nextTokenVersion(account.token_version, now) } : {}),
  };
}

/** The given fields, with null turned into the value that removes a key. */
function withoutNulls(fields: Readonly<Record<string, unknown>>): TomlChanges {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given.map(([key, value]) => [key, value ?? undefined]));
}

/**
 * The changes that the proxy itself must write after a manual edit: the hash in place of a plaintext password, and a
 * higher token version if the edit should end sessions. Empty if there are none.
 *
 * @param previous the account before the edit; undefined if it is new or at startup
 */
export async function changesDue(
  fields: AccountFields,
  previous: Account | undefined,
  hashPassword: (password: string) => Promise<string>,
  now: number,
): Promise<TomlChanges> {
  const version = nextTokenVersion(Math.max(fields.token_version, previous?.token_version ?? 0), now);
  if (fields.password !== undefined) {
    return { password_hash: await hashPassword(fields.password), password: undefined, token_version: version };
  }
  if (previous === undefined || fields.token_version > previous.token_version) return {};
  const endsSessions =
    fields.token_version < previous.token_version ||
    fields.password_hash !== previous.password_hash ||
    (previous.is_active && !fields.is_active);
  return endsSessions ? { token_version: version } : {};
}
