import { AppError } from "../../errors.ts";
import type { Awaitable } from "../../lib/awaitable.ts";
import type { Clock } from "../../lib/clock.ts";
import { createGenerationMap } from "../../lib/generation-map.ts";
import type { Log } from "../../lib/log.ts";
import { type Redis, replyList, replyText } from "../../lib/redis/redis.ts";
import type { ApiKeys, FoundApiKey } from "../api-keys.ts";
import { orInvalid } from "../files/account-text.ts";
import { newKeyRow } from "../files/file-api-keys.ts";
import { createOwnedTextFormat, type OwnedTextFormat } from "../files/owned-text.ts";
import { apiKeyHash, isWholeApiKey, newApiKeyText, signingSecretOf } from "../keys/api-key-text.ts";
import { apiKeyRow, toApiKey, type ApiKey, type ApiKeyRow } from "../keys/api-key.ts";
import { newSalt } from "../sessions/refresh-token.ts";
import type { Documents } from "./documents.ts";
import { createOwnedDocuments, type OwnedEdit, type OwnedList } from "./owned-documents.ts";
import { createPointers } from "./pointers.ts";

export interface RedisApiKeysOptions {
  readonly redis: Redis;
  readonly documents: Documents;
  readonly clock: Clock;
  readonly log: Log;
  readonly newId: () => string;
  /** Per user; default 50. */
  readonly maxKeys?: number;
  /** ms between two writes of the keys' last use; default one minute. */
  readonly flushMs?: number;
}

/** The keys in Redis: a document for each user with the text of NAME.keys.toml, and for each key whose it is. */
export interface RedisApiKeys extends ApiKeys {
  /** Writes the last uses. */
  close(): Promise<void>;
}

interface StoredKey {
  readonly key: ApiKey;
  readonly row: ApiKeyRow;
}

/** The documents have the last use to this: other processes would have to read them again each time. */
const usedInDocumentMs = 3_600_000;
/** Hashes of keys that clients have sent. */
const maxTexts = 50_000;

/** Keys as they are stored. */
export function createKeyFormat(): OwnedTextFormat<StoredKey> {
  return createOwnedTextFormat<ApiKeyRow, StoredKey>({
    kind: "keys",
    schema: apiKeyRow,
    read: (user, row) => ({ key: toApiKey(user, row), row }),
  });
}

export function openRedisApiKeys(options: RedisApiKeysOptions): RedisApiKeys {
  const { redis, documents, clock, log, maxKeys = 50 } = options;
  const monotonic = (): number => clock.monotonic();
  const format = createKeyFormat();
  const nameOf = ({ row }: StoredKey): string => row.hash;
  const owned = createOwnedDocuments({ kind: "keys", redis, documents, format, nameOf, log, monotonic });
  const pointers = createPointers(documents, "key", monotonic);
  /** By the key itself: SHA-256 for each request would be in vain. */
  const hashes = createGenerationMap<string>(maxTexts, () => Infinity, monotonic);
  const secrets = new WeakMap<StoredKey, FoundApiKey>();
  /** Uses that are not in Redis yet: by user, by the key's id, ms since the epoch. */
  const used = new Map<string, Map<string, number>>();
  const flushing = setInterval(() => void flush().catch(() => undefined), options.flushMs ?? 60_000).unref();

  const usedKey = (user: string): string => redis.keyIn(redis.tagOf(user), "used", user);

  /** Writes the last uses where they cost no other process anything, and now and then where they outlive Redis. */
  async function flush(): Promise<void> {
    for (const [user, uses] of [...used]) {
      used.delete(user);
      try {
        await redis.call("identity_used", [usedKey(user)], [...uses].flat());
        const { entries } = await owned.get(user);
        const isLate = ({ row }: StoredKey): boolean =>
          (uses.get(row.id) ?? 0) - (row.last_used_at?.getTime() ?? 0) >= usedInDocumentMs;
        if (entries.some(isLate)) {
          await owned.change(user, ({ entries }) => ({
            result: null,
            rows: entries.some(isLate) ? entries.map(({ row }) => withUse(row, uses.get(row.id))) : undefined,
          }));
        }
      } catch (err) {
        for (const [id, at] of uses) noteUse(user, id, at);
        log.warn({ user, err }, "the last use of API keys could not be written");
        return;
      }
    }
  }

  function noteUse(user: string, id: string, at: number): void {
    let uses = used.get(user);
    if (uses === undefined) used.set(user, (uses = new Map<string, number>()));
    uses.set(id, Math.max(at, uses.get(id) ?? 0));
  }

  function accept(text: string, stored: StoredKey): FoundApiKey {
    const { key, row } = stored;
    const now = clock.now();
    if (key.expiresAt !== null && key.expiresAt <= now) {
      throw new AppError("invalid_api_key", { message: "The API key has expired." });
    }
    noteUse(key.user, key.id, now);
    let found = secrets.get(stored);
    if (found === undefined) {
      const salt = row.signing_salt;
      found = { key, signingSecret: salt === undefined ? null : signingSecretOf(text, salt) };
      secrets.set(stored, found);
    }
    return found;
  }

  function hashOf(text: string): string {
    const known = hashes.get(text);
    if (known !== undefined) return known;
    if (!isWholeApiKey(text)) {
      throw new AppError("invalid_api_key", { message: "The API key is mistyped or cut off: its checksum is wrong." });
    }
    return apiKeyHash(text);
  }

  async function findLater(text: string, hash: string, owner: Awaitable<string | undefined>): Promise<FoundApiKey> {
    const user = await owner;
    if (user === undefined) throw unknownKey();
    // One that was made a moment ago by another process may not be in what is cached.
    const stored = (await owned.get(user)).byName.get(hash) ?? (await owned.renew(user)).byName.get(hash);
    if (stored === undefined) {
      pointers.forget(hash);
      throw unknownKey();
    }
    hashes.set(text, hash);
    return accept(text, stored);
  }

  /** Takes keys out of the document, so that they are in force nowhere; then whose they were. */
  async function revoke(user: string, isRevoked: (one: StoredKey) => boolean): Promise<number> {
    const revoked = await owned.change(user, ({ entries }): OwnedEdit<readonly StoredKey[]> => {
      const gone = entries.filter(isRevoked);
      const left = entries.filter((one) => !gone.includes(one)).map(({ row }) => row);
      return { result: gone, rows: gone.length === 0 ? undefined : left };
    });
    const uses = used.get(user);
    for (const { row } of revoked) uses?.delete(row.id);
    await Promise.allSettled(revoked.map(({ row }) => pointers.remove(row.hash)));
    return revoked.length;
  }

  async function usesOf(user: string): Promise<ReadonlyMap<string, number>> {
    const flat = replyList(await redis.call("identity_used", [usedKey(user)], [])).map(replyText);
    const stored = flat.flatMap((id, at) => (at % 2 === 0 ? [[id, Number(flat[at + 1])] as const] : []));
    const uses = new Map<string, number>(stored);
    for (const [id, at] of used.get(user) ?? []) uses.set(id, Math.max(at, uses.get(id) ?? 0));
    return uses;
  }

  const listOf = (list: OwnedList<StoredKey>, uses: ReadonlyMap<string, number>) =>
    list.entries.map(({ key, row }) => {
      const last = Math.max(uses.get(key.id) ?? 0, row.last_used_at?.getTime() ?? 0);
      return { ...key, lastUsedAt: last === 0 ? null : last };
    });

  return {
    find(text) {
      const hash = hashOf(text);
      const owner = pointers.ownerOf(hash);
      if (typeof owner === "string") {
        const stored = owned.atOnce(owner)?.byName.get(hash);
        if (stored !== undefined && hashes.get(text) !== undefined) return accept(text, stored);
      }
      return findLater(text, hash, owner);
    },
    async create({ username: user, created_at }, settings) {
      const text = newApiKeyText();
      const hash = apiKeyHash(text);
      const salt = settings.signed === true ? newSalt() : undefined;
      // Never before its account, whatever the clock says: an older key counts as a previous user's.
      const createdAt = Math.max(clock.now(), created_at?.getTime() ?? 0);
      const row = newKeyRow(settings, options.newId(), createdAt, hash, salt);
      const stored = orInvalid(() => format.readBack(user, row));
      await pointers.add(hash, user);
      try {
        await owned.change(user, ({ entries, isBroken }) => {
          if (isBroken) throw new AppError("conflict", { message: "The file of your API keys is damaged." });
          if (entries.length >= maxKeys) {
            throw new AppError("conflict", { message: `There are ${maxKeys} keys already: revoke one first.` });
          }
          return { result: null, rows: [...entries.map((one) => one.row), stored.row] };
        });
      } catch (error) {
        if (error instanceof AppError) await pointers.remove(hash).catch(() => undefined);
        throw error;
      }
      const signingSecret = salt === undefined ? undefined : signingSecretOf(text, salt);
      return { key: stored.key, text, signingSecret };
    },
    async list(user) {
      const [list, uses] = await Promise.all([owned.get(user), usesOf(user)]);
      return listOf(list, uses);
    },
    problems: () => owned.problems(),
    revoke: async (user, id) => (await revoke(user, ({ key }) => key.id === id)) > 0,
    revokeAll: (user) => revoke(user, () => true),
    async close() {
      clearInterval(flushing);
      await owned.idle();
      await flush().catch(() => undefined);
    },
  };
}

function withUse(row: ApiKeyRow, at: number | undefined): ApiKeyRow {
  return at === undefined || at <= (row.last_used_at?.getTime() ?? 0) ? row : { ...row, last_used_at: new Date(at) };
}

function unknownKey(): AppError {
  return new AppError("invalid_api_key");
}
