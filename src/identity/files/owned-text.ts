import { stringify, TomlError } from "smol-toml";
import { z } from "zod";
import { AccountTextError } from "./account-text.ts";
import { parseToml } from "./toml-edit.ts";

/** The text of one user's sessions or keys: a list of rows, of which some may be unreadable. */
interface OwnedText<T> {
  readonly rows: readonly ReadRow<T>[];
  /** Unreadable rows, as they are in the text. */
  readonly unread: readonly unknown[];
  readonly problems: readonly RowProblem[];
  /** Whether nothing could be read: overwriting it would lose what can still be repaired. */
  readonly isBroken: boolean;
}

/** A row that could be read. */
export interface ReadRow<T> {
  readonly index: number;
  readonly row: unknown;
  readonly entry: T;
}

/** Why a row, or the whole text, could not be read. Contains no values. */
export interface RowProblem {
  readonly reason: string;
  /** Counted from 1, where known. */
  readonly line?: number;
}

/** How rows are written and read. */
export interface OwnedTextFormat<T> {
  parse(user: string, text: string): OwnedText<T>;
  /** The text of rows. */
  write(rows: readonly unknown[]): string;
  /** What was wrong with a row, or with the whole text if there is no index. */
  problemOf(error: unknown, index?: number): RowProblem;
  /**
   * The row as it will be once written and read again.
   *
   * @throws AccountTextError if it can't be written, or would be read as another row or none
   */
  readBack(user: string, row: object): T;
}

export interface OwnedTextOptions<Row, T> {
  /** The name of the list. */
  readonly kind: "sessions" | "keys";
  readonly schema: z.ZodType<Row>;
  /** Parses a row. May throw AccountTextError. */
  readonly read: (user: string, row: Row) => T;
}

export function createOwnedTextFormat<Row, T>(options: OwnedTextOptions<Row, T>): OwnedTextFormat<T> {
  const { kind, schema } = options;
  const whole = z.strictObject({ [kind]: z.array(z.unknown()).default([]) });

  function toEntry(user: string, row: unknown): T {
    const { success, data, error } = schema.safeParse(row);
    if (!success) throw AccountTextError.of(error);
    return options.read(user, data);
  }

  function problemOf(error: unknown, index?: number): RowProblem {
    return {
      reason: (index === undefined ? "" : `${kind}.${index}: `) + reasonOf(error),
      ...(error instanceof TomlError ? { line: error.line } : {}),
    };
  }

  return {
    problemOf,
    parse(user, text) {
      let found: readonly unknown[];
      try {
        found = whole.parse(parseToml(text))[kind] ?? [];
      } catch (error) {
        return { rows: [], unread: [], problems: [problemOf(error)], isBroken: true };
      }
      const rows: ReadRow<T>[] = [];
      const unread: unknown[] = [];
      const problems: RowProblem[] = [];
      for (const [index, row] of found.entries()) {
        try {
          rows.push({ index, row, entry: toEntry(user, row) });
        } catch (error) {
          unread.push(row);
          problems.push(problemOf(error, index));
        }
      }
      return { rows, unread, problems, isBroken: false };
    },
    write: (rows) => `# Written by the proxy: changes made here are lost.\n${stringify({ [kind]: rows })}`,
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
  };
}

/** Without values: neither TOML's lines nor the schema's input are shown. */
function reasonOf(error: unknown): string {
  if (error instanceof TomlError) return error.message.split("\n", 1)[0] ?? "invalid TOML";
  if (error instanceof z.ZodError) return AccountTextError.of(error).message;
  return error instanceof Error ? error.message : String(error);
}
