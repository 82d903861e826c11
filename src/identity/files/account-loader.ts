import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { z } from "zod";
import type { Clock } from "../../lib/clock.ts";
import type { FileOps } from "../../lib/files/file-ops.ts";
import { changesDue } from "./account-changes.ts";
import { toAccount } from "./account-edits.ts";
import { isAccountFileName, readAccountFile, readStamp, writeAccountFile, type AccountFile } from "./account-file.ts";
import type { AccountRecords } from "./account-records.ts";
import type { AccountFields } from "../user-fields.ts";
import { parseAccountText } from "./account-text.ts";
import type { KeyedQueue } from "./keyed-queue.ts";
import { editToml } from "./toml-edit.ts";
import { isUserName } from "../user-name.ts";

export interface AccountLoaderOptions {
  readonly usersDir: string;
  readonly clock: Clock;
  readonly schema: z.ZodType<AccountFields>;
  readonly records: AccountRecords;
  /** Every task that touches a user's file goes through this queue, under the user's name. */
  readonly queue: KeyedQueue;
  readonly hashPassword: (password: string) => Promise<string>;
  readonly fileOps?: FileOps | undefined;
}

/** Keeps the records in sync with the files. */
export interface AccountLoader {
  /** Reads one user's file. Only inside a task of the queue; never rejects, problems go to the records. */
  load(name: string): Promise<void>;
  /** Reads the files that changed since the last scan. Rejects if the folder cannot be listed. */
  scan(): Promise<void>;
}

export function createAccountLoader(options: AccountLoaderOptions): AccountLoader {
  const { usersDir, records, queue } = options;
  const pathOf = (name: string) => join(usersDir, `${name}.toml`);

  async function load(name: string): Promise<void> {
    let file: AccountFile | undefined;
    try {
      file = await readAccountFile(pathOf(name));
      if (file === undefined) {
        records.drop(name);
        return;
      }
      const known = records.get(name);
      if (known?.text === file.text && !records.hasProblem(`${name}.toml`)) {
        records.put({ ...known, stamp: file.stamp });
      } else await adopt(name, file);
    } catch (error) {
      records.report(`${name}.toml`, error, file?.stamp);
    }
  }

  /** Puts a changed file into force, after writing the changes due into it. */
  async function adopt(name: string, file: AccountFile): Promise<void> {
    const fields = parseAccountText(file.text, name, options.schema);
    const changes = await changesDue(fields, records.get(name)?.account, options.hashPassword, options.clock.now());
    const account = toAccount({ ...fields, ...changes });
    if (Object.keys(changes).length === 0) {
      records.put({ account, ...file });
      return;
    }
    try {
      const text = editToml(file.text, changes);
      // Hashing and writing took a while: a save in the meantime must not be overwritten.
      if (await writeAccountFile(pathOf(name), text, options.fileOps, file.text))
        records.put({ account, text, stamp: undefined });
      else await load(name);
    } catch (error) {
      records.put({ account, ...file });
      const why = error instanceof Error ? error.message : String(error);
      const left = fields.password === undefined ? "" : ": THE PLAINTEXT PASSWORD STAYS IN IT";
      records.report(`${name}.toml`, new Error(`the file cannot be written (${why})${left}`), file.stamp);
    }
  }

  async function scan(): Promise<void> {
    const found = new Set((await readdir(usersDir)).filter(isAccountFileName));
    const gone = records.files().filter((file) => !found.has(file));
    const files = [...found, ...gone].values();
    const worker = async () => {
      for (const file of files) await look(file);
    };
    // Two at a time: plaintext passwords are hashed here, and no more than two argon2 runs may go on at once.
    await Promise.all([worker(), worker()]);
  }

  async function look(file: string): Promise<void> {
    const name = file.slice(0, -".toml".length);
    const stamp = await readStamp(join(usersDir, file)).catch(() => undefined);
    if (isUserName(name)) {
      if (stamp === undefined || stamp !== records.stampOf(name)) await queue.run(name, () => load(name));
    } else if (stamp === undefined) records.drop(name);
    else records.report(file, new Error("the file's name is not a user name"), stamp);
  }

  return { load, scan };
}
