import { stringify, TomlDate, TomlError } from "smol-toml";
import type { z } from "zod";
import { plainIssue } from "../../lib/plain-issue.ts";
import { maxAccountBytes } from "./account-file.ts";
import type { AccountFields } from "../user-fields.ts";
import { AppError } from "../../errors.ts";
import { editToml, parseToml, type TomlChanges } from "./toml-edit.ts";

/** An invalid user file. The message says why and contains no values of the file. */
export class AccountTextError extends Error {
  override readonly name = "AccountTextError";
  /** The invalid key, in dot notation; "" for the whole file. */
  readonly param: string;
  /** Counted from 1; undefined if the problem isn't on a single line. */
  readonly line: number | undefined;

  constructor(message: string, where: { readonly param?: string; readonly line?: number } = {}) {
    super(message);
    this.param = where.param ?? "";
    this.line = where.line;
  }

  /** From a schema's issues. Their messages contain no values. */
  static of({ issues }: z.ZodError): AccountTextError {
    const reasons = issues.map(
      ({ path, message }) => (path.length === 0 ? "" : `${path.join(".")}: `) + plainIssue(message),
    );
    return new AccountTextError(reasons.join("; "), { param: issues[0]?.path.join(".") ?? "" });
  }
}

/**
 * Parses a user file.
 *
 * @param name the file's name without .toml, which `username` must repeat
 * @throws AccountTextError
 */
export function parseAccountText(text: string, name: string, schema: z.ZodType<AccountFields>): AccountFields {
  const fields = checkAccountFields(parseOrExplain(text), schema);
  if (fields.username === name) return fields;
  throw new AccountTextError(`username: expected "${name}", like the file's name`, { param: "username" });
}

/**
 * Checks values before they are written; TOML's writer drops or replaces some that it can't represent. Throws as above.
 */
export function checkAccountFields(input: unknown, schema: z.ZodType<AccountFields>): AccountFields {
  const { success, data, error } = schema.safeParse(input);
  if (success) return data;
  throw AccountTextError.of(error);
}

/** The text of a new user file. Throws AccountTextError if a value cannot be written as TOML. */
export function newAccountText(fields: AccountFields): string {
  const { created_at, metadata, ...rest } = fields;
  return orUnwritable(() =>
    stringify({
      ...rest,
      ...(created_at === undefined ? {} : { created_at: TomlDate.wrapAsOffsetDateTime(created_at) }),
      ...(Object.keys(metadata).length === 0 ? {} : { metadata }),
    }),
  );
}

/** A user file's text with changed values. Throws AccountTextError if one cannot be written as TOML. */
export function editAccountText(text: string, changes: TomlChanges): string {
  return orUnwritable(() => editToml(text, changes));
}

function orUnwritable(write: () => string): string {
  let text: string;
  try {
    text = write();
  } catch {
    throw new AccountTextError("a value cannot be written as TOML", { param: "metadata" });
  }
  if (Buffer.byteLength(text) <= maxAccountBytes) return text;
  throw new AccountTextError(`the user file would be larger than ${maxAccountBytes} bytes`, { param: "metadata" });
}

function parseOrExplain(text: string): unknown {
  try {
    return parseToml(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    // The rest of its message shows the lines around the error, and one of them may contain a password.
    const [reason = "invalid TOML"] = error.message.split("\n");
    throw new AccountTextError(reason, { line: error.line });
  }
}

/** Turns AccountTextError into a 400, since the input is the caller's. */
export function orInvalid<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof AccountTextError)) throw error;
    throw new AppError("invalid_request", { message: error.message, param: error.param });
  }
}

/** The error of a failed write, for the caller. */
export function notSaved(error: unknown): never {
  throw new AppError("storage_unavailable", { message: "The account could not be saved.", cause: error });
}
