import type { LimitConfig } from "../config/schema.ts";
import type { Awaitable } from "../lib/awaitable.ts";
import type { Account } from "./account-schema.ts";
import type { ApiKey } from "./keys/api-key.ts";
import type { AccountProblem } from "./users.ts";

/** The settings that the owner of a new key chooses. */
export interface NewApiKey {
  readonly name: string;
  /** ms since the epoch. */
  readonly expiresAt?: number | undefined;
  readonly models?: readonly string[] | undefined;
  readonly addresses?: readonly string[] | undefined;
  readonly deny_addresses?: readonly string[] | undefined;
  readonly limits?: readonly LimitConfig[] | undefined;
  readonly group?: string | undefined;
  /** Whether its requests must be signed. */
  readonly signed?: boolean | undefined;
}

/** A key with the secrets that are shown only once. */
export interface CreatedApiKey {
  readonly key: ApiKey;
  readonly text: string;
  /** Only for a key whose requests must be signed. */
  readonly signingSecret: string | undefined;
}

/** A key in a list. */
export type ApiKeyInfo = ApiKey & {
  /** ms since the epoch; null: never. */
  readonly lastUsedAt: number | null;
};

/** A key that a client has sent. */
export interface FoundApiKey {
  readonly key: ApiKey;
  /** Signs the key's requests; null if they need no signature. */
  readonly signingSecret: string | null;
}

/** Long-lived keys for programs that can't log in. */
export interface ApiKeys {
  /**
   * The key for a text that a client has sent. Called for every request, and counts as a use of the key.
   *
   * @throws AppError `invalid_api_key`: mistyped, unknown, revoked or expired
   */
  find(text: string): Awaitable<FoundApiKey>;
  /**
   * Creates a key of an account. It is stored before it is shown.
   *
   * @throws AppError `invalid_request` (an invalid setting; it names which), `conflict` (too many keys, or what is
   * stored is invalid), `storage_unavailable`
   */
  create(account: Account, settings: NewApiKey): Awaitable<CreatedApiKey>;
  list(user: string): Awaitable<readonly ApiKeyInfo[]>;
  /** Keys that could not be read, and are not in force. */
  problems(): Awaitable<readonly AccountProblem[]>;
  /**
   * Revokes a key at once; stored when this resolves. Resolves to false if the user has no such key.
   *
   * @throws AppError `storage_unavailable`: revoked here, and stored as soon as possible
   */
  revoke(user: string, id: string): Awaitable<boolean>;
  /** Revokes all keys of a user; resolves to how many. Throws as above. */
  revokeAll(user: string): Awaitable<number>;
}
