import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import type { FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";
import { apiKeyHash, isWholeApiKey, newApiKeyText, signingSecretOf } from "../keys/api-key-text.ts";
import { apiKeyRow, toApiKey, type ApiKey, type ApiKeyRow } from "../keys/api-key.ts";
import type { Account } from "../account-schema.ts";
import type { ApiKeyInfo, ApiKeys, CreatedApiKey, FoundApiKey, NewApiKey } from "../api-keys.ts";
import type { AccountProblem } from "../users.ts";
import { createKeyedQueue } from "./keyed-queue.ts";
import { createOwnedFiles } from "./owned-files.ts";
import { orInvalid } from "./account-text.ts";
import { newSalt } from "../sessions/refresh-token.ts";

/** API keys in users/NAME.keys.toml. */
export interface FileApiKeys extends ApiKeys {
  /** A Map lookup, plus a hash the first time. */
  find(text: string): FoundApiKey;
  create(account: Account, settings: NewApiKey): Promise<CreatedApiKey>;
  list(user: string): readonly ApiKeyInfo[];
  problems(): readonly AccountProblem[];
  revoke(user: string, id: string): Promise<boolean>;
  revokeAll(user: string): Promise<number>;
  /** Writes pending changes. */
  close(): Promise<void>;
}

export interface FileApiKeysOptions {
  readonly usersDir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly newId: () => string;
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

/** A key that a client has sent. */
interface SentKey extends FoundApiKey {
  readonly entry: Entry;
}

/** Loads the keys from users/NAME.keys.toml. Rejects if the folder can't be read. */
export async function openFileApiKeys(options: FileApiKeysOptions): Promise<FileApiKeys> {
  const { usersDir, clock, log, fileOps, maxKeys = 50 } = options;
  const byHash = new Map<string, Entry>();
  const byUser = new Map<string, readonly Entry[]>();
  /** By the key itself, once a client has sent it. Holds only existing keys, so it needs no other bound. */
  const byText = new Map<string, SentKey>();
  /** Users whose file is out of date. */
  const behind = new Set<string>();
  const queue = createKeyedQueue();
  const files = createOwnedFiles<ApiKeyRow, StoredKey>({
    usersDir,
    kind: "keys",
    schema: apiKeyRow,
    log,
    fileOps,
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

  function lookUp(text: string): SentKey {
    const known = byText.get(text);
    if (known !== undefined) return known;
    if (!isWholeApiKey(text)) {
      throw new AppError("invalid_api_key", { message: "The API key is mistyped or cut off: its checksum is wrong." });
    }
    const entry = byHash.get(apiKeyHash(text));
    if (entry === undefined) throw new AppError("invalid_api_key");
    entry.text = text;
    const { key, row } = entry;
    const salt = row.signing_salt;
    const sent = { entry, key, signingSecret: salt === undefined ? null : signingSecretOf(text, salt) };
    byText.set(text, sent);
    return sent;
  }

  /** Takes keys out of force at once, and writes what is left. */
  async function revoke(user: string, revoked: readonly Entry[]): Promise<void> {
    for (const { row, text } of revoked) {
      byHash.delete(row.hash);
      byText.delete(text ?? "");
    }
    byUser.set(
      user,
      entriesOf(user).filter((one) => !revoked.includes(one)),
    );
    await queue.run(user, () => save(user));
  }

  return {
    find(text) {
      const sent = lookUp(text);
      const { entry, key } = sent;
      const now = clock.now();
      if (key.expiresAt !== null && key.expiresAt <= now) {
        throw new AppError("invalid_api_key", { message: "The API key has expired." });
      }
      entry.lastUsedAt = now;
      behind.add(key.user);
      return sent;
    },
    create: ({ username: user, created_at }, settings) =>
      queue.run(user, async () => {
        if (files.isBroken(user)) throw new AppError("conflict", { message: "The file of your API keys is damaged." });
        if (entriesOf(user).length >= maxKeys) {
          throw new AppError("conflict", { message: `There are ${maxKeys} keys already: revoke one first.` });
        }
        const text = newApiKeyText();
        const salt = settings.signed === true ? newSalt() : undefined;
        // Never before its account, whatever the clock says: an older key counts as a previous user's.
        const createdAt = Math.max(clock.now(), created_at?.getTime() ?? 0);
        const row = newKeyRow(settings, options.newId(), createdAt, apiKeyHash(text), salt);
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
      await revoke(user, [entry]);
      return true;
    },
    async revokeAll(user) {
      const entries = entriesOf(user);
      if (entries.length > 0) await revoke(user, entries);
      return entries.length;
    },
    async close() {
      clearInterval(flushing);
      await queue.idle();
      await flush();
    },
  };
}

/** A new key as it is stored. */
export function newKeyRow(
  settings: NewApiKey,
  id: string,
  createdAt: number,
  hash: string,
  salt: string | undefined,
): ApiKeyRow {
  const { name, expiresAt, models, addresses, deny_addresses: denied, limits, group } = settings;
  return {
    id,
    name,
    hash,
    created_at: new Date(createdAt),
    ...(expiresAt === undefined ? {} : { expires_at: new Date(expiresAt) }),
    ...(models === undefined ? {} : { models: [...models] }),
    ...(addresses === undefined ? {} : { addresses: [...addresses] }),
    ...(denied === undefined ? {} : { deny_addresses: [...denied] }),
    ...(limits === undefined ? {} : { limits: [...limits] }),
    ...(group === undefined ? {} : { group }),
    ...(salt === undefined ? {} : { signing_salt: salt }),
  };
}
