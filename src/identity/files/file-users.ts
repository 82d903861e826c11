import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../../errors.ts";
import type { Awaitable } from "../../lib/awaitable.ts";
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
import { changesOfPatch } from "./account-changes.ts";
import { changedAccountRecord, newAccountRecord } from "./account-edits.ts";
import { createAccountLoader } from "./account-loader.ts";
import { createAccountRecords, type AccountListener } from "./account-records.ts";
import { createAccountSchema, type Account } from "../account-schema.ts";
import { notSaved } from "./account-text.ts";
import { createKeyedQueue } from "./keyed-queue.ts";
import type { TomlChanges } from "./toml-edit.ts";
import { checkUserName, isUserName } from "../user-name.ts";
import type { AccountPatch, AccountProblem, ChangeCheck, NewAccount, PatchOf, Users } from "../users.ts";
import { searchUsers } from "./user-search.ts";
import { watchUsers } from "./users-watch.ts";

export interface FileUsersOptions {
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

/** The accounts in users/NAME.toml, and the only writer of these files. */
export interface FileUsers extends Users {
  /** One Map lookup. The object stays the same until the account changes. */
  get(name: string): Account | undefined;
  list(): readonly Account[];
  /** The array stays the same until an account is added or removed. */
  names(): readonly string[];
  problems(): readonly AccountProblem[];
  create(fields: NewAccount): Promise<Account>;
  update(name: string, patch: AccountPatch | PatchOf, check?: ChangeCheck): Promise<Account>;
  archive(
    name: string,
    check: (account: Account) => Awaitable<void>,
    endAccess: () => Promise<unknown>,
  ): Promise<Account>;
  rehash(name: string, oldHash: string, newHash: string): Promise<void>;
  /** Reads files with a problem again: the tiers of config.toml have changed. */
  recheck(): void;
  /** Calls the listener after each change from any source, until the returned function is called. */
  onChange(listener: AccountListener): () => void;
  /** Stops watching and waits for pending writes. */
  close(): Promise<void>;
}

/** How often a change is made again because others have changed the file meanwhile. */
const maxSaves = 5;

/**
 * Loads all accounts and keeps them in sync with the files. An invalid file doesn't keep the others from loading.
 *
 * Others may write as well (the command line, people): a file is read again just before it is replaced, and where it has
 * changed, the change is made once more on what it is now. So only edits within the same instant can overwrite one another.
 *
 * @throws Error if the folder cannot be created or read
 */
export async function openFileUsers(options: FileUsersOptions): Promise<FileUsers> {
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
    for (let attempt = 0; attempt < maxSaves; attempt++) {
      const record = await currentRecord(name);
      const { text, account } = changedAccountRecord(record, changesOf, schema);
      await check?.(record.account, account);
      if (text === record.text) return record.account;
      if (!(await writeAccountFile(pathOf(name), text, fileOps, record.text).catch(notSaved))) continue;
      records.put({ account, text, stamp: undefined });
      return account;
    }
    throw new AppError("conflict", { message: `The file ${name}.toml is changed by others all the time.` });
  }

  return {
    get: (name) => records.get(name)?.account,
    list: () => records.list(),
    search: (query) => searchUsers(records, query, clock.now()),
    names: () => records.names(),
    problems: () => records.problems(),
    create: async ({ password, ...fields }) => {
      const name = checkUserName(fields.username);
      const taken = new AppError("conflict", { param: "username", message: `There is a user "${name}" already.` });
      if (records.get(name) !== undefined) throw taken;
      const hash = typeof password === "string" ? await hashPassword(password) : password.hash;
      const { text, account } = newAccountRecord(fields, hash, clock.now(), schema);
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
        await check(account);
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
