import { parseCommandLine, UsageError } from "./command-line.ts";
import type { CliAdmin } from "./open-user-admin.ts";
import type { CommandIo } from "./this-process.ts";
import { fieldOptions } from "./user-fields.ts";

export const userUsage = `Usage: npm run user -- COMMAND [OPTIONS]

  list                       all users                    --search TEXT
  show NAME                  all that is known of one
  add NAME                   make a user                  --password-stdin, and the fields below
  set NAME [KEY=VALUE ...]   change fields, by the names of the user file or by these options:
      --tier TIER  --role ROLE (may be repeated)  --max-parallel N  --active-from T  --expires-at T
      --metadata KEY=VALUE (may be repeated); an empty value removes
  ban NAME                   refuse the user for a time   --until T  --reason TEXT
  unban NAME
  disable NAME               refuse the user from the next request on
  enable NAME                let the user in again
  passwd NAME                set a password               --password-stdin
  reset-password NAME        make a one-time password, which the user must change
  archive NAME               take the user out of use; the file is kept in .archive
  sessions NAME              where the user is logged in
  end-sessions NAME          log the user out everywhere
  keys NAME                  the user's API keys
  revoke-key NAME ID         end an API key

Without --password-stdin a random password is made and printed once; that of a new user is a one-time one.
T is a time such as 2026-12-31T18:00:00+08:00. --config FILE says where config.toml is.
A running server notices every change by itself; the last five commands are refused beside one, unless state.backend is
"redis": then all of them work on what all servers share in the Redis of REDIS_URL.`;

const options = {
  ...fieldOptions,
  config: { type: "string" },
  search: { type: "string" },
  until: { type: "string" },
  reason: { type: "string" },
  "password-stdin": { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

type CommandOption = Exclude<keyof typeof options, keyof typeof fieldOptions | "config" | "help">;

/** Refuses options that a command would ignore: with --until, `disable` is not meant for ever. Throws UsageError. */
export function checkOptions(word: string, { takes = [] }: UserCommand, values: UserCall["values"]): void {
  const known: readonly string[] = [
    ...takes,
    "config",
    "help",
    ...(takes.includes("fields") ? Object.keys(fieldOptions) : []),
  ];
  const other = Object.keys(values).find((name) => !known.includes(name));
  if (other !== undefined) throw new UsageError(`${word} takes no --${other}`);
}

/** Throws UsageError. */
export function parseUserOptions(argv: readonly string[]) {
  return parseCommandLine(argv, options);
}

/** The arguments of a command. */
export interface UserCall extends CliAdmin {
  readonly values: ReturnType<typeof parseUserOptions>["values"];
  /** The words after NAME. */
  readonly words: readonly string[];
  readonly io: CommandIo;
}

/** One command of `npm run user`. */
export interface UserCommand {
  readonly run: (name: string, call: UserCall) => void | Promise<void>;
  /** Minimum and maximum number of words after the command. Default: NAME alone. */
  readonly words?: readonly [number, number];
  /** The options that it takes beside --config; `fields`: also those of fields. Any other is refused. */
  readonly takes?: readonly (CommandOption | "fields")[];
  /** The equivalent route of a running server, for commands that can't run beside one. */
  readonly route?: string;
}
