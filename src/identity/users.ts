import type { Awaitable } from "../lib/awaitable.ts";
import type { Account } from "./account-schema.ts";
import type { AccountState } from "./account-state.ts";
import type { Role } from "./roles.ts";
import type { FieldChanges, SettableFields } from "./user-fields.ts";

/** A new account. The port checks every value. */
export interface NewAccount extends SettableFields {
  readonly username: string;
  /** As it was typed, or hashed already. */
  readonly password: string | { readonly hash: string };
  readonly quota_tier: string;
  readonly must_change_password?: boolean | undefined;
  readonly invitation?: string | undefined;
}

/** Changes to an account; absent keys stay. null removes a key, so that its default applies. */
export interface AccountPatch extends FieldChanges {
  readonly password?: string | undefined;
  readonly must_change_password?: boolean | null | undefined;
  readonly totp_secret?: string | null | undefined;
  readonly totp_last_step?: number | null | undefined;
  readonly recovery_codes?: readonly string[] | null | undefined;
}

/** A patch that depends on the account. No password: hashing it takes too long for where this is called. */
export type PatchOf = (account: Account) => Omit<AccountPatch, "password">;

/** May refuse a change by throwing. Gets the account as it is stored now, and as it would become. */
export type ChangeCheck = (before: Account, after: Account) => Awaitable<void>;

/** A stored user, session or key that is not in force in its current state. */
export interface AccountProblem {
  /** Where it is stored: the name of its file in the users folder. */
  readonly file: string;
  /** Contains no values of the file. */
  readonly reason: string;
  /** Counted from 1, where known. */
  readonly line?: number | undefined;
}

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
  /** The state now. */
  readonly state?: AccountState | undefined;
}

/** Users ordered by name. */
export interface UserPage {
  readonly users: readonly Account[];
  /** Start of the next page; null if there is none. */
  readonly nextCursor: string | null;
}

/** The accounts of all users. Where they are stored is the only place that changes them. */
export interface Users {
  /** Called for every request: an implementation behind a network keeps a cache. An object is never changed. */
  get(name: string): Awaitable<Account | undefined>;
  /** One page of users. */
  search(query: UserQuery): Awaitable<UserPage>;
  /** All names, sorted. */
  names(): Awaitable<readonly string[]>;
  /**
   * What is not in force in its current state. An account that becomes invalid while we run stays as it was: locking
   * users out over a typo would be worse, and the problem shows in the log and in /healthz.
   */
  problems(): Awaitable<readonly AccountProblem[]>;
  /** @throws AppError `invalid_request`, `conflict` (the name is taken), `storage_unavailable` */
  create(fields: NewAccount): Awaitable<Account>;
  /**
   * Changes an account as it is stored now. A new password and disabling raise its token_version.
   *
   * @param patch the changes, or a function that computes them from the current account
   * @param check called right before the change is stored: it sees exactly what is replaced. Both are called again if
   * the account has been changed by somebody else meanwhile
   * @throws AppError `invalid_request`, `not_found`, `conflict` (what is stored is invalid), `storage_unavailable`, and
   * what `check` throws
   */
  update(name: string, patch: AccountPatch | PatchOf, check?: ChangeCheck): Awaitable<Account>;
  /**
   * Takes an account out of use and keeps it aside. The ledger's counts stay: they belong to the name.
   *
   * @param endAccess ends sessions and keys; called once the account can't authenticate any more
   * @throws what `check` throws; otherwise as `update`, and what `endAccess` throws
   */
  archive(
    name: string,
    check: (account: Account) => Awaitable<void>,
    endAccess: () => Promise<unknown>,
  ): Awaitable<Account>;
  /** Replaces a hash with a stronger one of the same password; does nothing if the hash has changed since. */
  rehash(name: string, oldHash: string, newHash: string): Awaitable<void>;
}
