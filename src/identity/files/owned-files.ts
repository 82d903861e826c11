import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { stringify, TomlError } from "smol-toml";
import { z } from "zod";
import { readPlainFile } from "../../lib/files/atomic-file.ts";
import type { FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";
import { writeAccountFile } from "./account-file.ts";
import type { AccountProblem } from "../users.ts";
import { AccountTextError } from "./account-text.ts";
import { parseToml } from "./toml-edit.ts";
import { isUserName } from "../user-name.ts";

/** One file per user beside the accounts, which only the proxy writes: users/NAME.KIND.toml. */
export interface OwnedFiles<T> {
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
   * The row as it will be once written and read again.
   *
   * @throws AccountTextError if it can't be written, or would be read as another row or none
   */
  readBack(user: string, row: object): T;
  /**
   * Replaces a user's file; it is on disk when this resolves. Unreadable rows are kept in it unchanged, to be repaired.
   * Rejects with Node's error.
   */
  save(user: string, rows: readonly object[]): Promise<void>;
}

/** A row that could be read. */
interface ReadRow<T> {
  readonly index: number;
  readonly row: unknown;
  readonly entry: T;
}

interface OwnedFilesOptions<Row, T> {
  readonly usersDir: string;
  /** The files' suffix, and the name of their list. */
  readonly kind: "sessions" | "keys";
  readonly schema: z.ZodType<Row>;
  /** Parses a row. May throw AccountTextError. */
  readonly read: (user: string, row: Row) => T;
  /** Names that must be unique across all users. */
  readonly namesOf: (entry: T) => readonly string[];
  readonly log: Log;
  readonly fileOps?: FileOps | undefined;
}

const parallelReads = 8;

export function createOwnedFiles<Row, T>(options: OwnedFilesOptions<Row, T>): OwnedFiles<T> {
  const { usersDir, kind, schema, log } = options;
  const ending = `.${kind}.toml`;
  const whole = z.strictObject({ [kind]: z.array(z.unknown()).default([]) });
  const broken = new Set<string>();
  const problems = new Map<string, readonly AccountProblem[]>();
  /** Unreadable rows, as they are in the file. */
  const unread = new Map<string, readonly unknown[]>();

  /** Sets aside a row that is not to be in force. */
  function reject(user: string, row: unknown, error: unknown, index: number): void {
    unread.set(user, [...(unread.get(user) ?? []), row]);
    report(user, error, index);
  }

  function report(user: string, error: unknown, row?: number): void {
    const problem = {
      file: `${user}${ending}`,
      reason: (row === undefined ? "" : `${kind}.${row}: `) + reasonOf(error),
      ...(error instanceof TomlError ? { line: error.line } : {}),
    };
    problems.set(user, [...(problems.get(user) ?? []), problem]);
    log.error(problem, `${row === undefined ? "the" : "one of the"} ${kind} of a user cannot be read: not in force`);
  }

  function toEntry(user: string, row: unknown): T {
    const { success, data, error } = schema.safeParse(row);
    if (!success) throw AccountTextError.of(error);
    return options.read(user, data);
  }

  async function load(user: string): Promise<readonly ReadRow<T>[]> {
    let rows: readonly unknown[];
    try {
      rows = whole.parse(parseToml(await readPlainFile(join(usersDir, `${user}${ending}`))))[kind] ?? [];
    } catch (error) {
      broken.add(user);
      report(user, error);
      return [];
    }
    return rows.flatMap((row, index) => {
      try {
        return [{ index, row, entry: toEntry(user, row) }];
      } catch (error) {
        reject(user, row, error, index);
        return [];
      }
    });
  }

  /** A copied file would give one user the keys of another. The first user in name order keeps them. */
  function withoutDuplicates(found: ReadonlyMap<string, readonly ReadRow<T>[]>): ReadonlyMap<string, readonly T[]> {
    const taken = new Set<string>();
    const unique = [...found].map(([user, rows]) => {
      const entries = rows.flatMap(({ index, row, entry }) => {
        const names = options.namesOf(entry);
        if (names.some((name) => taken.has(name))) {
          reject(user, row, new AccountTextError("it is there twice"), index);
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
    readBack(user, row) {
      let text: string;
      let read: unknown;
      try {
        text = stringify({ [kind]: [row] });
        // Through bytes: encoding replaces half of a surrogate pair.
        read = whole.parse(parseToml(Buffer.from(text).toString()))[kind]?.[0];
      } catch {
        throw new AccountTextError("a value cannot be written as TOML");
      }
      const entry = toEntry(user, read);
      if (stringify({ [kind]: [read] }) !== text) throw new AccountTextError("a value cannot be written as it is");
      return entry;
    },
    async save(user, rows) {
      const content = stringify({ [kind]: [...rows, ...(unread.get(user) ?? [])] });
      const text = `# Written by the proxy: changes made here are lost.\n${content}`;
      await writeAccountFile(join(usersDir, `${user}${ending}`), text, options.fileOps);
      if (broken.delete(user)) problems.delete(user);
    },
  };
}

/** Without values: neither TOML's lines nor the schema's input are shown. */
function reasonOf(error: unknown): string {
  if (error instanceof TomlError) return error.message.split("\n", 1)[0] ?? "invalid TOML";
  if (error instanceof z.ZodError) return AccountTextError.of(error).message;
  return error instanceof Error ? error.message : String(error);
}
