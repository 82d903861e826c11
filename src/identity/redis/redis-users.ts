import { randomBytes } from "node:crypto";
import { AppError } from "../../errors.ts";
import type { Awaitable } from "../../lib/awaitable.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import type { Redis } from "../../lib/redis/redis.ts";
import { createAccountSchema, type Account } from "../account-schema.ts";
import { accountState } from "../account-state.ts";
import { changesOfPatch } from "../files/account-changes.ts";
import { type AccountRecord, changedAccountRecord, newAccountRecord, toAccount } from "../files/account-edits.ts";
import { AccountTextError, parseAccountText } from "../files/account-text.ts";
import { createKeyedQueue } from "../files/keyed-queue.ts";
import type { TomlChanges } from "../files/toml-edit.ts";
import { checkUserName, isUserName } from "../user-name.ts";
import type { AccountProblem, ChangeCheck, PatchOf, UserPage, UserQuery, Users } from "../users.ts";
import { type Documents, nameIn, type StoredDocument } from "./documents.ts";
import { createFreshCache } from "./fresh-cache.ts";
import { createNameList } from "./name-list.ts";
import { createProblems } from "./problems.ts";

export interface RedisUsersOptions {
  readonly redis: Redis;
  readonly documents: Documents;
  readonly clock: Clock;
  readonly log: Log;
  /** The tiers of config.toml now; an account with any other is not in force. */
  readonly tierNames: () => readonly string[];
  /** Passwords.hash */
  readonly hashPassword: (password: string) => Promise<string>;
}

/** The accounts in Redis, each as the text of its users/NAME.toml. */
export interface RedisUsers extends Users {
  /** At once while it may be trusted; then it is read again. The object stays the same until the account changes. */
  get(name: string): Awaitable<Account | undefined>;
  /** From now on the account is read again: what another process knows of it is newer than what this one has. */
  forget(name: string): void;
  /** The tiers of config.toml have changed: what was not in force may be now. */
  recheck(): void;
  close(): Promise<void>;
}

/** A stored account; one that can't be parsed is not in force. */
type StoredAccount =
  | (AccountRecord & { readonly version: string })
  | { readonly version: string; readonly account: undefined; readonly error: unknown };

/** A change is tried again so often when others change the same account at the same time. */
const maxTries = 100;
/** Accounts read at once for a page. */
const pageSize = 100;

export function openRedisUsers(options: RedisUsersOptions): RedisUsers {
  const { redis, documents, clock, hashPassword } = options;
  const schema = createAccountSchema(options.tierNames);
  const queue = createKeyedQueue();
  const problems = createProblems(options.log, "a user is not in force as it is stored");
  const names = createNameList(documents, "users");
  const cache = createFreshCache<StoredAccount>({
    read: async (name, previous) => parsed(name, (await documents.read("users", name)).document, previous),
    trustedAwayMs: documents.trustedAwayMs,
    monotonic: () => clock.monotonic(),
  });
  redis.onChange("doc", (key) => {
    const name = key === null ? null : nameIn(key, "users");
    if (name === null) cache.forgetAll();
    else if (name !== undefined) cache.forget(name);
  });

  function parsed(
    name: string,
    document: StoredDocument | undefined,
    previous?: StoredAccount,
  ): StoredAccount | undefined {
    if (document === undefined) {
      problems.clear(name);
      return undefined;
    }
    const { version, text } = document;
    if (previous?.version === version && previous.account !== undefined) return previous;
    try {
      const account = toAccount(parseAccountText(text, name, schema));
      problems.clear(name);
      return { version, text, account };
    } catch (error) {
      problems.report(name, { file: `${name}.toml`, ...reasonOf(error) });
      return { version, account: undefined, error };
    }
  }

  /** The account as it is in Redis now. */
  async function current(name: string): Promise<AccountRecord & { readonly version: string }> {
    const stored = parsed(name, (await documents.read("users", name)).document);
    if (stored === undefined) throw new AppError("not_found", { message: `There is no user "${name}".` });
    if (stored.account !== undefined) return stored;
    throw new AppError("conflict", { message: `The account ${name} has a problem that must be mended first.` });
  }

  /** Tries until nobody else has changed the account meanwhile. */
  async function untilStored<T extends object>(name: string, change: () => Promise<T | undefined>): Promise<T> {
    for (let tries = 0; tries < maxTries; tries++) {
      const done = await change();
      cache.forget(name);
      if (done !== undefined) return done;
    }
    throw new AppError("storage_unavailable", { message: "The account is changed by others all the time." });
  }

  function save(name: string, changesOf: (account: Account) => TomlChanges, check?: ChangeCheck): Promise<Account> {
    return untilStored(name, async () => {
      const before = await current(name);
      const { text, account } = changedAccountRecord(before, changesOf, schema);
      await check?.(before.account, account);
      if (text === before.text) return before.account;
      const version = await documents.put({ kind: "users", name, text, expected: before.version });
      return version === undefined ? undefined : account;
    });
  }

  /** Past the cache: a long list must not displace what requests need. */
  async function accountOf(name: string): Promise<Account | undefined> {
    const known = cache.peek(name);
    const stored = known === undefined ? parsed(name, (await documents.read("users", name)).document) : known.value;
    return stored?.account;
  }

  async function search({ cursor, limit, search, tier, role, state }: UserQuery): Promise<UserPage> {
    const part = search?.toLowerCase() ?? "";
    const users: Account[] = [];
    let after = cursor ?? "";
    for (;;) {
      const page = await names.pageAfter(after, pageSize);
      const found = page.names.filter((name) => name.includes(part));
      for (const account of await Promise.all(found.map(accountOf))) {
        if (account === undefined) continue;
        if (tier !== undefined && account.quota_tier !== tier) continue;
        if (role !== undefined && !account.roles.includes(role)) continue;
        if (state !== undefined && accountState(account, clock.now()) !== state) continue;
        // One more than requested: only then is there a next page.
        if (users.length === limit) return { users, nextCursor: users.at(-1)?.username ?? null };
        users.push(account);
      }
      if (page.isLast) return { users, nextCursor: null };
      after = page.names.at(-1) ?? after;
    }
  }

  return {
    get(name) {
      if (!isUserName(name)) return undefined;
      const stored = cache.get(name);
      return stored instanceof Promise ? stored.then((later) => later?.account) : stored?.account;
    },
    search,
    names: () => names.all(),
    problems: () => problems.current((name) => cache.renew(name)),
    async create({ password, ...fields }) {
      const name = checkUserName(fields.username);
      const taken = new AppError("conflict", { param: "username", message: `There is a user "${name}" already.` });
      if ((await documents.read("users", name)).document !== undefined) throw taken;
      const hash = typeof password === "string" ? await hashPassword(password) : password.hash;
      const { text } = newAccountRecord(fields, hash, clock.now(), schema);
      const version = await documents.put({ kind: "users", name, text, expected: "new" });
      cache.forget(name);
      if (version === undefined) throw taken;
      return toAccount(parseAccountText(text, name, schema));
    },
    async update(name, patch, check) {
      checkUserName(name);
      const patchOf: PatchOf = typeof patch === "function" ? patch : () => patch;
      const password = typeof patch === "function" ? undefined : patch.password;
      const hash = password === undefined ? undefined : await hashPassword(password);
      const changesOf = (account: Account) => changesOfPatch(account, patchOf(account), hash, clock.now());
      return queue.run(name, () => save(name, changesOf, check));
    },
    async archive(name, check, endAccess) {
      checkUserName(name);
      return queue.run(name, async () => {
        const folder = archiveFolder(name, clock.now());
        const account = await untilStored(name, async () => {
          const before = await current(name);
          await check(before.account);
          const stored = { ...before, mark: "" };
          const isMoved = await documents.archive("users", name, stored, `${folder}/${name}.toml`);
          return isMoved ? before.account : undefined;
        });
        try {
          await endAccess();
        } finally {
          await archiveRecords(documents, name, folder);
        }
        return account;
      });
    },
    async rehash(name, oldHash, newHash) {
      await queue.run(name, () =>
        save(name, (account) => (account.password_hash === oldHash ? { password_hash: newHash } : {})),
      );
    },
    forget: (name) => {
      cache.forget(name);
    },
    recheck() {
      cache.forgetAll();
    },
    close: () => queue.idle(),
  };
}

/** The folder of an archived account in .archive. */
function archiveFolder(name: string, now: number): string {
  const time = new Date(now).toISOString().replace(/[-:]|\.\d+/g, "");
  return `${name}-${time}-${randomBytes(3).toString("hex")}`;
}

/** Moves what remains of keys and sessions, so that a later user of the same name starts with none. */
async function archiveRecords(documents: Documents, name: string, folder: string): Promise<void> {
  for (const kind of ["sessions", "keys"] as const) {
    for (let tries = 0; tries < maxTries; tries++) {
      const { document } = await documents.read(kind, name);
      if (document === undefined) break;
      if (await documents.archive(kind, name, document, `${folder}/${name}.${kind}.toml`)) break;
    }
  }
}

function reasonOf(error: unknown): Pick<AccountProblem, "reason" | "line"> {
  const reason = error instanceof Error ? error.message : String(error);
  return { reason, ...(error instanceof AccountTextError ? { line: error.line } : {}) };
}
