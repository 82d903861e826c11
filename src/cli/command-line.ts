import { parseArgs, type ParseArgsConfig } from "node:util";
import { fileErrorCode } from "../lib/files/file-ops.ts";
import type { CommandIo } from "./this-process.ts";

/** Invalid command line; the usage is shown above its message. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

type Options = NonNullable<ParseArgsConfig["options"]>;

/** Reads options and positional arguments. Throws UsageError. */
export function parseCommandLine<O extends Options>(argv: readonly string[], options: O) {
  try {
    return parseArgs({ args: [...argv], options, allowPositionals: true, strict: true });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/**
 * Runs a command and prints its errors as one line for the operator.
 *
 * @param work returns the exit code
 * @returns the exit code: that of `work`, 1 if it threw, 2 for wrong usage
 */
export async function runCommand(
  io: Pick<CommandIo, "err">,
  usage: string,
  work: () => Promise<number>,
): Promise<number> {
  try {
    return await work();
  } catch (error) {
    const isUsage = error instanceof UsageError;
    // The error comes last: the usage has more lines than some terminals.
    if (isUsage) io.err(`${usage}\n`);
    io.err(`error: ${textOf(error)}`);
    return isUsage ? 2 : 1;
  }
}

/** The message, with what the system said: an operator can do something about that, and a command has no log. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { message, cause } = error;
  const isOfSystem = cause instanceof Error && fileErrorCode(cause) !== undefined;
  return isOfSystem && !message.includes(cause.message) ? `${message} ${cause.message}` : message;
}

/** A number with its noun: "1 record", "2 records". */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
