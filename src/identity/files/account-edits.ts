import type { z } from "zod";
import type { Account } from "../account-schema.ts";
import type { AccountFields } from "../user-fields.ts";
import type { NewAccount } from "../users.ts";
import { nextTokenVersion } from "./account-changes.ts";
import { checkAccountFields, editAccountText, newAccountText, orInvalid, parseAccountText } from "./account-text.ts";
import type { TomlChanges } from "./toml-edit.ts";

/** An account, and the text that it was read from. */
export interface AccountRecord {
  readonly account: Account;
  readonly text: string;
}

/** The account of a user file whose password is hashed. */
export function toAccount(fields: AccountFields): Account {
  const { password, password_hash, ...rest } = fields;
  if (password !== undefined || password_hash === undefined) throw new Error("the password has not been hashed");
  return { ...rest, password_hash };
}

/**
 * A new account as it will be read.
 *
 * @param now ms since the epoch
 * @throws AppError `invalid_request`
 */
export function newAccountRecord(
  fields: Omit<NewAccount, "password">,
  password_hash: string,
  now: number,
  schema: z.ZodType<AccountFields>,
): AccountRecord {
  return orInvalid(() => {
    const input = { ...fields, password_hash, token_version: nextTokenVersion(0, now), created_at: new Date(now) };
    const text = newAccountText(checkAccountFields(input, schema));
    return { text, account: toAccount(parseAccountText(text, fields.username, schema)) };
  });
}

/**
 * An account as it will be read after a change; the rest of its text stays.
 *
 * @throws AppError `invalid_request`, and what `changesOf` throws
 */
export function changedAccountRecord(
  { account: before, text }: AccountRecord,
  changesOf: (account: Account) => TomlChanges,
  schema: z.ZodType<AccountFields>,
): AccountRecord {
  return orInvalid(() => {
    const changes = changesOf(before);
    checkAccountFields({ ...before, ...changes }, schema);
    const edited = editAccountText(text, changes);
    return { text: edited, account: toAccount(parseAccountText(edited, before.username, schema)) };
  });
}
