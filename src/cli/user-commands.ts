import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { roles, type Account, type Role } from "../accounts/account-schema.ts";
import { createAccountStore, type AccountStore } from "../accounts/account-store.ts";
import { generatePassword } from "../accounts/generated-password.ts";
import { createPasswords } from "../accounts/password.ts";
import { loadConfig } from "../config/load.ts";
import { systemClock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";

/** The process as the command sees it. */
export interface CliIo {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** Everything on standard input. */
  readStdin(): Promise<string>;
  /** One line of standard output. */
  out(line: string): void;
  /** One line of standard error. */
  err(line: string): void;
}

const usage = `Usage: npm run user -- COMMAND [OPTIONS]

  add NAME      make a user        --tier TIER  --role ROLE (may be repeated)  --max-parallel N  --password-stdin
  passwd NAME   set a new password --password-stdin
  disable NAME  refuse the user from the next request on
  enable NAME   let the user in again
  list          show all users

Without --password-stdin a random password is made and printed once.
--config FILE says where config.toml is. A running server notices every change by itself.`;

const options = {
  config: { type: "string" },
  tier: { type: "string" },
  role: { type: "string", multiple: true },
  "max-parallel": { type: "string" },
  "password-stdin": { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

interface Call {
  readonly store: AccountStore;
  readonly tierNames: readonly string[];
  readonly values: ReturnType<typeof parse>["values"];
  readonly io: CliIo;
}

class UsageError extends Error {}

/** NAME -> what it does; `list` is apart because it takes no NAME. */
const commands: Readonly<Record<string, (name: string, call: Call) => Promise<void>>> = {
  add: addUser,
  passwd: setPassword,
  disable: async (name, { store, io }) => {
    await store.update(name, { is_active: false });
    io.out(`${name} is disabled.`);
  },
  enable: async (name, { store, io }) => {
    await store.update(name, { is_active: true });
    io.out(`${name} is enabled.`);
  },
};

/**
 * Runs one command of `npm run user`.
 *
 * @param argv the arguments after the program's name
 * @returns the exit code: 0 done, 1 refused or failed, 2 wrong usage
 */
export async function runUserCli(argv: readonly string[], io: CliIo): Promise<number> {
  try {
    const { values, positionals } = parse(argv);
    const [command = "", name] = positionals;
    if (values.help) {
      io.out(usage);
      return 0;
    }
    const run = command === "list" ? listUsers : Object.hasOwn(commands, command) ? commands[command] : undefined;
    if (run === undefined) throw new UsageError(command === "" ? "say what to do" : `there is no command "${command}"`);
    if (positionals.length !== (command === "list" ? 1 : 2)) {
      throw new UsageError(command === "list" ? "list takes no name" : `${command} takes one user name`);
    }
    await withStore(values, io, (call) => run(name ?? "", call));
    return 0;
  } catch (error) {
    io.err(`error: ${error instanceof Error ? error.message : String(error)}`);
    if (!(error instanceof UsageError)) return 1;
    io.err(usage);
    return 2;
  }
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options, allowPositionals: true, strict: true });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

async function withStore(values: Call["values"], io: CliIo, work: (call: Call) => Promise<void>): Promise<void> {
  const { config, folder } = loadConfig(values.config, io.env, io.cwd);
  const usersDir = resolve(folder, config.storage.users_dir);
  const tierNames = Object.keys(config.quota.tiers);
  const passwords = await createPasswords({ maxHashes: config.auth.max_hashes, maxWaiting: 1 });
  const hashPassword = (password: string) => passwords.hash(password);
  const store = await createAccountStore({ usersDir, tierNames, hashPassword, clock: systemClock, log, watch: false });
  try {
    for (const { file, line, reason } of store.problems()) {
      io.err(`warning: ${file}${line === undefined ? "" : `:${line}`}: ${reason}`);
    }
    await work({ store, tierNames, values, io });
  } finally {
    await store.close();
  }
}

async function addUser(name: string, { store, tierNames, values, io }: Call): Promise<void> {
  const tier = values.tier ?? tierNames[0];
  if (tier === undefined) throw new Error("config.toml defines no tier");
  const maxParallel = values["max-parallel"];
  const { password, isGenerated } = await newPassword(values, io);
  await store.create({
    username: name,
    password,
    quota_tier: tier,
    ...(values.role === undefined ? {} : { roles: values.role.map(toRole) }),
    ...(maxParallel === undefined ? {} : { max_parallel: Number(maxParallel) }),
  });
  io.out(`${name} is added, with tier ${tier}.`);
  if (isGenerated) io.out(`Password (shown only now): ${password}`);
}

async function setPassword(name: string, { store, values, io }: Call): Promise<void> {
  const { password, isGenerated } = await newPassword(values, io);
  await store.update(name, { password });
  io.out(`${name} has a new password; tokens of the old one are refused.`);
  if (isGenerated) io.out(`Password (shown only now): ${password}`);
}

function listUsers(_name: string, { store, io }: Call): Promise<void> {
  const accounts = [...store.list()].sort((a, b) => (a.username < b.username ? -1 : 1));
  const row = (name: string, tier: string, state: string, roles: string) =>
    [name.padEnd(32), tier.padEnd(12), state.padEnd(9), roles].join("  ").trimEnd();
  io.out(row("NAME", "TIER", "STATE", "ROLES"));
  for (const { username, quota_tier, is_active, roles } of accounts satisfies readonly Account[]) {
    io.out(row(username, quota_tier, is_active ? "active" : "disabled", roles.join(",")));
  }
  return Promise.resolve();
}

async function newPassword(values: Call["values"], io: CliIo) {
  if (!values["password-stdin"]) return { password: generatePassword(), isGenerated: true };
  const password = (await io.readStdin()).replace(/\r?\n$/, "");
  return { password, isGenerated: false };
}

function toRole(text: string): Role {
  const role = roles.find((known) => known === text);
  if (role === undefined) throw new UsageError(`there is no role "${text}": ${roles.join(", ")}`);
  return role;
}

/** The command says what matters itself: the problems, and its own outcome. */
const log: Log = { debug: ignore, info: ignore, warn: ignore, error: ignore };

function ignore(): void {
  // Nothing to keep.
}
