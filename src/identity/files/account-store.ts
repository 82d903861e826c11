import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import type { FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";
import {
  archiveAccountFile,
  archiveRecords,
  createAccountFile,
  isAccountFileName,
  writeAccountFile,
} from "./account-file.ts";
import { changesOfPatch, nextTokenVersion, type AccountPatch, type NewAccount } from "./account-changes.ts";
import { createAccountLoader, toAccount } from "./account-loader.ts";
import { createAccountRecords, type AccountListener, type AccountProblem } from "./account-records.ts";
import { createAccountSchema, type Account } from "../account-schema.ts";
import {
  checkAccountFields,
  editAccountText,
  newAccountText,
  notSaved,
  orInvalid,
  parseAccountText,
} from "./account-text.ts";
import { createKeyedQueue } from "./keyed-queue.ts";
import type { TomlChanges } from "./toml-edit.ts";
import { checkUserName, isUserName } from "../user-name.ts";
import { watchUsers } from "./users-watch.ts";

export interface AccountStoreOptions {
  /** Created with mode 0700 if it doesn't exist. */
  readonly usersDir: string;
  readonly clock: Clock;
  readonly log: Log;
  /** The tiers of config.toml now; an account with any other is a problem. */
  readonly tierNames: () => readonly string[];
  /** Passwords.hash */
  readonly hashPassword: (password: string) => Promise<string>;
  /** Whether to watch the files for changes; default true. */
  readonly watch?: boolean;
  /** ms to wait for a save to complete; default 50. */
  readonly debounceMs?: number;
  /** ms between two scans of the whole folder; default 30 s. */
  readonly rescanMs?: number;
  /** How to write; by default to the disk. */
  readonly fileOps?: FileOps;
}

/** A patch that depends on the account. No password: hashing it would block the queue. */
type PatchOf = (account: Account) => Omit<AccountPatch, "password">;

/** May refuse a change by throwing. Gets the account as in its file now, and as it would become. Synchronous. */
type ChangeCheck = (before: Account, after: Account) => void;

/** The accounts in users/NAME.toml, and the only writer of these files. */
export interface AccountStore {
  /** One Map lookup. The object stays the same until the account changes. */
  get(name: string): Account | undefined;
  list(): readonly Account[];
  /** All names, sorted. The array stays the same until an account is added or removed. */
  names(): readonly string[];
  /**
   * Files that are not in force in their current state. If a file becomes invalid while we run, its account stays as it
   * was: locking users out over a typo would be worse, and the problem shows in the log and in /healthz.
   */
  problems(): readonly AccountProblem[];
  /** @throws AppError `invalid_request`, `conflict` (the name is taken), `storage_unavailable` */
  create(fields: NewAccount): Promise<Account>;
  /**
   * Changes an account as its file is now, including manual edits.
   *
   * @param patch the changes, or a function that computes them from the current account; both then run in one queue
   * task
   * @param check called in the user's queue task, right before the file is written: it sees exactly what is replaced
   * @throws AppError `invalid_request`, `not_found`, `conflict` (the file is invalid), `storage_unavailable`
   */
  update(name: string, patch: AccountPatch | PatchOf, check?: ChangeCheck): Promise<Account>;
  /**
   * Takes an account out of use and keeps its file under users/.archive/. The ledger's counts stay: they belong to the
   * name.
   *
   * @param endAccess ends sessions and keys; called once the account can't authenticate any more
   * @throws what `check` throws; otherwise as `update`, and what `endAccess` throws
   */
  archive(name: string, check: (account: Account) => void, endAccess: () => Promise<unknown>): Promise<Account>;
  /** Replaces a hash with a stronger one of the same password; does nothing if the hash has changed since. */
  rehash(name: string, oldHash: string, newHash: string): Promise<void>;
  /** Reads files with a problem again: the tiers of config.toml have changed. */
  recheck(): void;
  /** Calls the listener after each change from any source, until the returned function is called. */
  onChange(listener: AccountListener): () => void;
  /** Stops watching and waits for pending writes. */
  close(): Promise<void>;
}

/**
 * Loads all accounts and keeps them in sync with the files. An invalid file doesn't keep the others from loading.
 *
 * Two processes may write (the server and the command line): each reads the file again just before it writes, so only
 * edits within the same millisecond can overwrite one another.
 *
 * @throws Error if the folder cannot be created or read
 */
export async function createAccountStore(options: AccountStoreOptions): Promise<AccountStore> {
  const { usersDir, clock, log, hashPassword, fileOps } = options;
  const schema = createAccountSchema(options.tierNames);
  const records = createAccountRecords(log);
  const queue = createKeyedQueue();
  const loader = createAccountLoader({ usersDir, clock, schema, records, queue, hashPassword, fileOps });
  const pathOf = (name: string) => join(usersDir, `${name}.toml`);

  await mkdir(usersDir, { recursive: true, mode: 0o700 });
  await loader.scan();
  log.info({ accounts: records.list().length, problems: records.problems().length }, "accounts loaded");

  let scanning: Promise<void> | undefined;
  const rescan = () => {
    scanning ??= loader
      .scan()
      .catch((error: unknown) => {
        log.error({ folder: usersDir, err: error }, "the users folder cannot be read");
      })
      .finally(() => (scanning = undefined));
  };
  const watcher = options.watch === false ? undefined : startWatching();

  function startWatching() {
    const { debounceMs = 50, rescanMs = 30_000 } = options;
    const started = watchUsers({
      folder: usersDir,
      log,
      isOurs: isAccountFileName,
      debounceMs,
      rescanMs,
      onAny: rescan,
      onFiles: (files) => {
        for (const name of [...files].map((file) => file.slice(0, -".toml".length))) {
          if (isUserName(name)) void queue.run(name, () => loader.load(name));
          else rescan();
        }
      },
    });
    // Catches changes between the first scan and the start of the watch.
    rescan();
    return started;
  }

  /** The record of the file as it is now. Only inside a task of the queue. */
  async function currentRecord(name: string) {
    await loader.load(name);
    if (records.hasProblem(`${name}.toml`)) {
      throw new AppError("conflict", { message: `The file ${name}.toml has a problem that must be mended first.` });
    }
    const record = records.get(name);
    if (record === undefined) throw new AppError("not_found", { message: `There is no user "${name}".` });
    return record;
  }

  /** Applies changes to the file as it is now. Only inside a task of the queue. */
  async function save(
    name: string,
    changesOf: (account: Account) => TomlChanges,
    check?: ChangeCheck,
  ): Promise<Account> {
    const record = await currentRecord(name);
    const { text, account } = orInvalid(() => {
      const changes = changesOf(record.account);
      checkAccountFields({ ...record.account, ...changes }, schema);
      const text = editAccountText(record.text, changes);
      return { text, account: toAccount(parseAccountText(text, name, schema)) };
    });
    check?.(record.account, account);
    if (text === record.text) return record.account;
    await writeAccountFile(pathOf(name), text, fileOps).catch(notSaved);
    records.put({ account, text, stamp: undefined });
    return account;
  }

  return {
    get: (name) => records.get(name)?.account,
    list: () => records.list(),
    names: () => records.names(),
    problems: () => records.problems(),
    create: async ({ password, ...fields }) => {
      const name = checkUserName(fields.username);
      const taken = new AppError("conflict", { param: "username", message: `There is a user "${name}" already.` });
      if (records.get(name) !== undefined) throw taken;
      const password_hash = await hashPassword(password);
      const now = clock.now();
      const { text, account } = orInvalid(() => {
        const input = { ...fields, password_hash, token_version: nextTokenVersion(0, now), created_at: new Date(now) };
        const text = newAccountText(checkAccountFields(input, schema));
        return { text, account: toAccount(parseAccountText(text, name, schema)) };
      });
      return queue.run(name, async () => {
        if (!(await createAccountFile(pathOf(name), text, fileOps).catch(notSaved))) throw taken;
        records.put({ account, text, stamp: undefined });
        return account;
      });
    },
    update: async (name, patch, check) => {
      checkUserName(name);
      const patchOf: PatchOf = typeof patch === "function" ? patch : () => patch;
      const password = typeof patch === "function" ? undefined : patch.password;
      const hash = password === undefined ? undefined : await hashPassword(password);
      const changesOf = (account: Account) => changesOfPatch(account, patchOf(account), hash, clock.now());
      return queue.run(name, () => save(name, changesOf, check));
    },
    archive: async (name, check, endAccess) => {
      checkUserName(name);
      return queue.run(name, async () => {
        const { account } = await currentRecord(name);
        check(account);
        const folder = await archiveAccountFile(usersDir, name, clock.now()).catch(notSaved);
        await loader.load(name);
        try {
          await endAccess();
        } finally {
          await archiveRecords(usersDir, name, folder).catch(notSaved);
        }
        return account;
      });
    },
    rehash: async (name, oldHash, newHash) => {
      await queue.run(name, () =>
        save(name, (account) => (account.password_hash === oldHash ? { password_hash: newHash } : {})),
      );
    },
    recheck() {
      for (const { file } of records.problems()) {
        const name = file.slice(0, -".toml".length);
        if (file === `${name}.toml` && isUserName(name)) void queue.run(name, () => loader.load(name));
      }
    },
    onChange: (listener) => records.onChange(listener),
    close: async () => {
      watcher?.close();
      await scanning;
      await queue.idle();
    },
  };
}
