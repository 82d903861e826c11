import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { readPlainFile } from "../../lib/files/atomic-file.ts";
import type { FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";
import { writeAccountFile } from "./account-file.ts";
import type { AccountProblem } from "../users.ts";
import { AccountTextError } from "./account-text.ts";
import {
  createOwnedTextFormat,
  type OwnedTextFormat,
  type OwnedTextOptions,
  type ReadRow,
  type RowProblem,
} from "./owned-text.ts";
import { isUserName } from "../user-name.ts";

/** One file per user beside the accounts, which only the proxy writes: users/NAME.KIND.toml. */
export interface OwnedFiles<T> extends Pick<OwnedTextFormat<T>, "readBack"> {
  /**
   * Reads all of them, by user. An unreadable row, and a file with no readable row, is reported as a problem and left
   * out; everything else stays in force.
   */
  loadAll(): Promise<ReadonlyMap<string, readonly T[]>>;
  /** Rows and files that could not be read. */
  problems(): readonly AccountProblem[];
  /** Whether nothing in the user's file could be read: overwriting it would lose what can still be repaired. */
  isBroken(user: string): boolean;
  /**
   * Replaces a user's file; it is on disk when this resolves. Unreadable rows are kept in it unchanged, to be repaired.
   * Rejects with Node's error.
   */
  save(user: string, rows: readonly object[]): Promise<void>;
}

interface OwnedFilesOptions<Row, T> extends OwnedTextOptions<Row, T> {
  readonly usersDir: string;
  /** Names that must be unique across all users. */
  readonly namesOf: (entry: T) => readonly string[];
  readonly log: Log;
  readonly fileOps?: FileOps | undefined;
}

const parallelReads = 8;

export function createOwnedFiles<Row, T>(options: OwnedFilesOptions<Row, T>): OwnedFiles<T> {
  const { usersDir, kind, log } = options;
  const ending = `.${kind}.toml`;
  const format = createOwnedTextFormat(options);
  const broken = new Set<string>();
  const problems = new Map<string, readonly AccountProblem[]>();
  /** Unreadable rows, as they are in the file. */
  const unread = new Map<string, readonly unknown[]>();

  function report(user: string, found: RowProblem, what: string): void {
    const problem = { file: `${user}${ending}`, ...found };
    problems.set(user, [...(problems.get(user) ?? []), problem]);
    log.error(problem, `${what} ${kind} of a user cannot be read: not in force`);
  }

  async function load(user: string): Promise<readonly ReadRow<T>[]> {
    let text: string;
    try {
      text = await readPlainFile(join(usersDir, `${user}${ending}`));
    } catch (error) {
      broken.add(user);
      report(user, format.problemOf(error), "the");
      return [];
    }
    const read = format.parse(user, text);
    if (read.isBroken) broken.add(user);
    if (read.unread.length > 0) unread.set(user, read.unread);
    for (const problem of read.problems) report(user, problem, read.isBroken ? "the" : "one of the");
    return read.rows;
  }

  /** A copied file would give one user the keys of another. The first user in name order keeps them. */
  function withoutDuplicates(found: ReadonlyMap<string, readonly ReadRow<T>[]>): ReadonlyMap<string, readonly T[]> {
    const taken = new Set<string>();
    const unique = [...found].map(([user, rows]) => {
      const entries = rows.flatMap(({ index, row, entry }) => {
        const names = options.namesOf(entry);
        if (names.some((name) => taken.has(name))) {
          unread.set(user, [...(unread.get(user) ?? []), row]);
          report(user, format.problemOf(new AccountTextError("it is there twice"), index), "one of the");
          return [];
        }
        for (const name of names) taken.add(name);
        return [entry];
      });
      return [user, entries] as const;
    });
    return new Map(unique);
  }

  return {
    async loadAll() {
      const names = (await readdir(usersDir))
        .filter((file) => file.endsWith(ending))
        .map((file) => file.slice(0, -ending.length))
        .filter(isUserName)
        .sort();
      const found = new Map<string, readonly ReadRow<T>[]>(names.map((user) => [user, []]));
      const queue = names.values();
      const worker = async (): Promise<void> => {
        for (const user of queue) found.set(user, await load(user));
      };
      await Promise.all(Array.from({ length: parallelReads }, worker));
      return withoutDuplicates(found);
    },
    problems: () => [...problems.values()].flat(),
    isBroken: (user) => broken.has(user),
    readBack: (user, row) => format.readBack(user, row),
    async save(user, rows) {
      const text = format.write([...rows, ...(unread.get(user) ?? [])]);
      await writeAccountFile(join(usersDir, `${user}${ending}`), text, options.fileOps);
      if (broken.delete(user)) problems.delete(user);
    },
  };
}
