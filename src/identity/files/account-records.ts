import type { Log } from "../../lib/log.ts";
import type { Account } from "../account-schema.ts";
import type { AccountProblem } from "../users.ts";
import { AccountTextError } from "./account-text.ts";

/** Called for an account that is new or changed; undefined if it was removed. Must not throw. */
export type AccountListener = (name: string, account: Account | undefined) => void;

/** An account, and the text of the file that it was read from. */
interface AccountRecord {
  readonly account: Account;
  readonly text: string;
  /** undefined if we wrote the file ourselves and have not read it since. */
  readonly stamp: string | undefined;
}

/** The accounts in force, the problems, and the listeners. */
export interface AccountRecords {
  get(name: string): AccountRecord | undefined;
  list(): readonly Account[];
  /** The names of all accounts, sorted; rebuilt only if an account was added or removed. */
  names(): readonly string[];
  problems(): readonly AccountProblem[];
  hasProblem(file: string): boolean;
  /** The stamp of the file when it was last read. */
  stampOf(name: string): string | undefined;
  /** Names of all files seen, valid or not. */
  files(): readonly string[];
  /** Puts an account into force and clears its file's problem. */
  put(record: AccountRecord): void;
  /** Removes an account and its file's problem. */
  drop(name: string): void;
  /** Records a problem with a file, and logs it unless it is known. An account in force stays in force. */
  report(file: string, error: unknown, stamp: string | undefined): void;
  onChange(listener: AccountListener): () => void;
}

export function createAccountRecords(log: Log): AccountRecords {
  const records = new Map<string, AccountRecord>();
  const problems = new Map<string, { readonly problem: AccountProblem; readonly stamp: string | undefined }>();
  const listeners = new Set<AccountListener>();
  let names: readonly string[] | undefined;

  const notify = (name: string, account: Account | undefined) => {
    for (const listener of listeners) listener(name, account);
  };

  return {
    get: (name) => records.get(name),
    list: () => [...records.values()].map(({ account }) => account),
    names: () => (names ??= [...records.keys()].sort()),
    problems: () => [...problems.values()].map(({ problem }) => problem),
    hasProblem: (file) => problems.has(file),
    stampOf: (name) => (problems.get(`${name}.toml`) ?? records.get(name))?.stamp,
    files: () => [...new Set([...[...records.keys()].map((name) => `${name}.toml`), ...problems.keys()])],
    put: (record) => {
      const name = record.account.username;
      const isNew = records.get(name)?.text !== record.text || problems.has(`${name}.toml`);
      problems.delete(`${name}.toml`);
      if (!records.has(name)) names = undefined;
      records.set(name, record);
      if (isNew) notify(name, record.account);
    },
    drop: (name) => {
      problems.delete(`${name}.toml`);
      if (!records.delete(name)) return;
      names = undefined;
      log.info({ user: name }, "account removed: its file is gone");
      notify(name, undefined);
    },
    report: (file, error, stamp) => {
      const reason = error instanceof Error ? error.message : String(error);
      const line = error instanceof AccountTextError ? error.line : undefined;
      const isNew = problems.get(file)?.problem.reason !== reason;
      problems.set(file, { problem: { file, reason, line }, stamp });
      if (isNew) log.error({ file, reason, line }, "user file not in force; an account loaded earlier stays as it was");
    },
    onChange: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
