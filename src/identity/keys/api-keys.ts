import { AppError } from "../../errors.ts";
import type { LimitConfig } from "../../config/schema.ts";
import type { Clock } from "../../lib/clock.ts";
import type { FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";
import { apiKeyHash, isWholeApiKey, newApiKeyText, signingSecretOf } from "./api-key-text.ts";
import { apiKeyRow, toApiKey, type ApiKey, type ApiKeyRow } from "./api-key.ts";
import type { Account } from "../account-schema.ts";
import type { AccountProblem } from "../files/account-records.ts";
import { createKeyedQueue } from "../files/keyed-queue.ts";
import { createOwnedFiles } from "../files/owned-files.ts";
import { orInvalid } from "../files/account-text.ts";
import { newSalt } from "../sessions/refresh-token.ts";

/** The settings that the owner of a new key chooses. */
interface NewApiKey {
  readonly name: string;
  /** ms since the epoch. */
  readonly expiresAt?: number | undefined;
  readonly models?: readonly string[] | undefined;
  readonly addresses?: readonly string[] | undefined;
  readonly limits?: readonly LimitConfig[] | undefined;
  /** Whether its requests must be signed. */
  readonly signed?: boolean | undefined;
}

/** A key with the secrets that are shown only once. */
interface CreatedApiKey {
  readonly key: ApiKey;
  readonly text: string;
  /** Only for a key whose requests must be signed. */
  readonly signingSecret: string | undefined;
}

/** A key in a list. */
type ApiKeyInfo = ApiKey & {
  /** ms since the epoch; null: never. */
  readonly lastUsedAt: number | null;
};

/** Long-lived keys for programs that can't log in. */
export interface ApiKeys {
  /**
   * The key for a text that a client has sent. Synchronous: a Map lookup, plus a hash the first time.
   *
   * @throws AppError `invalid_api_key`: mistyped, unknown, revoked or expired
   */
  check(text: string): ApiKey;
  /** The secret that signs the requests of an authenticated key. */
  signingSecret(key: ApiKey): string;
  /**
   * @throws AppError `invalid_request` (an invalid setting; it names which), `conflict` (too many keys, or the file is
   * invalid), `storage_unavailable`
   */
  create(user: string, terms: NewApiKey): Promise<CreatedApiKey>;
  list(user: string): readonly ApiKeyInfo[];
  /** Keys and files that could not be read, and are not in force. */
  problems(): readonly AccountProblem[];
  /**
   * Revokes a key at once; on disk when this resolves. Resolves to false if the user has no such key.
   *
   * @throws AppError `storage_unavailable`: revoked in memory, and written as soon as possible
   */
  revoke(user: string, id: string): Promise<boolean>;
  /** Writes pending changes. */
  close(): Promise<void>;
}

export interface ApiKeysOptions {
  readonly usersDir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly newId: () => string;
  /** AccountStore.get */
  readonly findAccount: (name: string) => Account | undefined;
  /** Per user; default 50. */
  readonly maxKeys?: number;
  /** ms between two writes of the keys' last use; default one minute. */
  readonly flushMs?: number;
  readonly fileOps?: FileOps;
}

interface StoredKey {
  readonly key: ApiKey;
  readonly row: ApiKeyRow;
}

interface Entry extends StoredKey {
  /** ms since the epoch. */
  lastUsedAt: number | null;
  /** The key itself, once a client has sent it. */
  text: string | undefined;
}

/** Loads the keys from users/NAME.keys.toml. Rejects if the folder can't be read. */
export async function openApiKeys(options: ApiKeysOptions): Promise<ApiKeys> {
  const { usersDir, clock, log, fileOps, maxKeys = 50 } = options;
  const byHash = new Map<string, Entry>();
  const byUser = new Map<string, readonly Entry[]>();
  /** By the key itself, once a client has sent it. Holds only existing keys, so it needs no other bound. */
  const byText = new Map<string, Entry>();
  /** Users whose file is out of date. */
  const behind = new Set<string>();
  const queue = createKeyedQueue();
  const files = createOwnedFiles<ApiKeyRow, StoredKey>({
    ...{ usersDir, kind: "keys", schema: apiKeyRow, log, fileOps },
    read: (user, row) => ({ key: toApiKey(user, row), row }),
    namesOf: ({ row }) => [row.id, row.hash],
  });

  for (const [user, stored] of await files.loadAll()) {
    for (const one of stored) add(user, one);
  }
  const flushing = setInterval(() => void flush(), options.flushMs ?? 60_000).unref();

  function add(user: string, { key, row }: StoredKey): void {
    const entry = { key, row, lastUsedAt: row.last_used_at?.getTime() ?? null, text: undefined };
    byHash.set(row.hash, entry);
    byUser.set(user, [...entriesOf(user), entry]);
  }

  function entriesOf(user: string): readonly Entry[] {
    return byUser.get(user) ?? [];
  }

  /** Only inside a task of the queue. */
  async function save(user: string, added?: ApiKeyRow): Promise<void> {
    const rows = entriesOf(user).map(({ row, lastUsedAt }) =>
      lastUsedAt === null ? row : { ...row, last_used_at: new Date(lastUsedAt) },
    );
    behind.delete(user);
    try {
      await files.save(user, added === undefined ? rows : [...rows, added]);
    } catch (cause) {
      behind.add(user);
      log.error({ user, err: cause }, "the API keys of a user could not be written");
      throw new AppError("storage_unavailable", { message: "The API keys could not be saved.", cause });
    }
  }

  async function flush(): Promise<void> {
    // One after another: nothing waits for this, and the journal's syncs come first.
    for (const user of [...behind]) await queue.run(user, () => save(user)).catch(() => undefined);
  }

  function find(text: string): Entry {
    const known = byText.get(text);
    if (known !== undefined) return known;
    if (!isWholeApiKey(text)) {
      throw new AppError("invalid_api_key", { message: "The API key is mistyped or cut off: its checksum is wrong." });
    }
    const entry = byHash.get(apiKeyHash(text));
    if (entry === undefined) throw new AppError("invalid_api_key");
    entry.text = text;
    byText.set(text, entry);
    return entry;
  }

  return {
    check(text) {
      const entry = find(text);
      const now = clock.now();
      const { key } = entry;
      if (key.expiresAt !== null && key.expiresAt <= now) {
        throw new AppError("invalid_api_key", { message: "The API key has expired." });
      }
      entry.lastUsedAt = now;
      behind.add(key.user);
      return key;
    },
    signingSecret(key) {
      const { text, row } = entriesOf(key.user).find((entry) => entry.key === key) ?? {};
      // Revoked a moment ago, or a key without signatures.
      if (text === undefined || row?.signing_salt === undefined) throw new AppError("invalid_api_key");
      return signingSecretOf(text, row.signing_salt);
    },
    create: (user, terms) =>
      queue.run(user, async () => {
        if (files.isBroken(user)) throw new AppError("conflict", { message: "The file of your API keys is damaged." });
        if (entriesOf(user).length >= maxKeys) {
          throw new AppError("conflict", { message: `There are ${maxKeys} keys already: revoke one first.` });
        }
        const text = newApiKeyText();
        const salt = terms.signed === true ? newSalt() : undefined;
        // Never before its account, whatever the clock says: an older key counts as a previous user's.
        const createdAt = Math.max(clock.now(), options.findAccount(user)?.created_at?.getTime() ?? 0);
        const row = newRow(terms, options.newId(), createdAt, apiKeyHash(text), salt);
        const stored = orInvalid(() => files.readBack(user, row));
        // Active only once it is on disk: a key that was shown must not be lost.
        await save(user, stored.row);
        add(user, stored);
        const signingSecret = salt === undefined ? undefined : signingSecretOf(text, salt);
        return { key: stored.key, text, signingSecret };
      }),
    list: (user) => entriesOf(user).map(({ key, lastUsedAt }) => ({ ...key, lastUsedAt })),
    problems: () => files.problems(),
    async revoke(user, id) {
      const entry = entriesOf(user).find(({ key }) => key.id === id);
      if (entry === undefined) return false;
      byHash.delete(entry.row.hash);
      byText.delete(entry.text ?? "");
      byUser.set(
        user,
        entriesOf(user).filter((one) => one !== entry),
      );
      await queue.run(user, () => save(user));
      return true;
    },
    async close() {
      clearInterval(flushing);
      await queue.idle();
      await flush();
    },
  };
}

function newRow(terms: NewApiKey, id: string, createdAt: number, hash: string, salt: string | undefined): ApiKeyRow {
  const { name, expiresAt, models, addresses, limits } = terms;
  return {
    id,
    name,
    hash,
    created_at: new Date(createdAt),
    ...(expiresAt === undefined ? {} : { expires_at: new Date(expiresAt) }),
    ...(models === undefined ? {} : { models: [...models] }),
    ...(addresses === undefined ? {} : { addresses: [...addresses] }),
    ...(limits === undefined ? {} : { limits: [...limits] }),
    ...(salt === undefined ? {} : { signing_salt: salt }),
  };
}
