import { stringify, TomlDate, TomlError } from "smol-toml";
import type { z } from "zod";
import { maxAccountBytes } from "./account-file.ts";
import type { AccountFields } from "../account-schema.ts";
import { AppError } from "../../errors.ts";
import { editToml, parseToml, type TomlChanges } from "./toml-edit.ts";

/** A user file that cannot be used. The message says why and holds no values of it. */
export class AccountTextError extends Error {
  override readonly name = "AccountTextError";
  /** The key at fault, in dot notation; "" where it is the whole file. */
  readonly param: string;
  /** Counted from 1; undefined where no single line is at fault. */
  readonly line: number | undefined;

  constructor(message: string, where: { readonly param?: string; readonly line?: number } = {}) {
    super(message);
    this.param = where.param ?? "";
    this.line = where.line;
  }

  /** What a schema has found. Its messages hold no values. */
  static of({ issues }: z.ZodError): AccountTextError {
    const reasons = issues.map(({ path, message }) => (path.length === 0 ? "" : `${path.join(".")}: `) + message);
    return new AccountTextError(reasons.join("; "), { param: issues[0]?.path.join(".") ?? "" });
  }
}

/**
 * Reads a user file's text.
 *
 * @param name the file's name without .toml, which `username` must repeat
 * @throws AccountTextError
 */
export function parseAccountText(text: string, name: string, schema: z.ZodType<AccountFields>): AccountFields {
  const fields = checkAccountFields(parseOrExplain(text), schema);
  if (fields.username === name) return fields;
  throw new AccountTextError(`username: expected "${name}", like the file's name`, { param: "username" });
}

/** Checks values before they are written; TOML's writer drops or replaces some that it can't hold. Throws as above. */
export function checkAccountFields(input: unknown, schema: z.ZodType<AccountFields>): AccountFields {
  const { success, data, error } = schema.safeParse(input);
  if (success) return data;
  throw AccountTextError.of(error);
}

/** The text of a new user file. Throws AccountTextError where a value cannot be written as TOML. */
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

/** A user file's text with other values. Throws AccountTextError where one cannot be written as TOML. */
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
    // Its message goes on with the lines around the fault, and one of them may hold a password.
    const [reason = "invalid TOML"] = error.message.split("\n");
    throw new AccountTextError(reason, { line: error.line });
  }
}

/** Runs what depends on the caller's values; what is wrong with them is the caller's to hear. */
export function orInvalid<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof AccountTextError)) throw error;
    throw new AppError("invalid_request", { message: error.message, param: error.param });
  }
}

/** What a failed write is to the caller. */
export function notSaved(error: unknown): never {
  throw new AppError("storage_unavailable", { message: "The account could not be saved.", cause: error });
}
