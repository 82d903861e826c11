import { accountState } from "../identity/account-state.ts";
import { generatePassword } from "../identity/passwords/new-password.ts";
import type { NewUser } from "../admin/user-admin.ts";
import { viewOf } from "../identity/user-fields.ts";
import { systemClock } from "../lib/clock.ts";
import { counted, runCommand, UsageError } from "./command-line.ts";
import { withUserAdmin } from "./open-user-admin.ts";
import type { CommandIo } from "./this-process.ts";
import { credentialsCommands } from "./user-credentials-commands.ts";
import { mergeMetadata, readFields, readValue } from "./user-fields.ts";
import { checkOptions, parseUserOptions, userUsage, type UserCall, type UserCommand } from "./user-options.ts";

const commands: Readonly<Record<string, UserCommand>> = {
  ...credentialsCommands,
  list: { run: listUsers, words: [0, 0], takes: ["search"] },
  show: {
    run: async (name, { users, io }) => {
      const account = await users.get(name);
      io.out(JSON.stringify({ ...viewOf(account), state: accountState(account, systemClock.now()) }, null, 2));
    },
  },
  add: { run: addUser, takes: ["fields", "password-stdin"] },
  set: { run: setFields, words: [1, Infinity], takes: ["fields"] },
  ban: { run: banUser, takes: ["until", "reason"] },
  unban: {
    run: async (name, { users, actor, io }) => {
      await users.patch(actor, name, { banned_until: null });
      io.out(`${name} is no longer banned.`);
    },
  },
  disable: { run: (name, call) => setActive(name, false, call) },
  enable: { run: (name, call) => setActive(name, true, call) },
  passwd: {
    takes: ["password-stdin"],
    run: async (name, { users, actor, values, io }) => {
      const given = await givenPassword(values, io);
      const password = given ?? generatePassword();
      await users.setPassword(actor, name, password);
      io.out(`${name} has a new password; tokens of the old one are refused.`);
      if (given === undefined) io.out(`Password (shown only now): ${password}`);
    },
  },
  "reset-password": {
    run: async (name, { users, actor, io }) => {
      const { password = "" } = await users.resetPassword(actor, name);
      io.out(`${name} has a one-time password, which must be changed at the next login.`);
      io.out(`Password (shown only now): ${password}`);
    },
  },
};

/**
 * Runs one command of `npm run user`.
 *
 * @param argv the arguments after the program's name
 * @returns the exit code: 0 done, 1 refused or failed, 2 wrong usage
 */
export function runUserCli(argv: readonly string[], io: CommandIo): Promise<number> {
  return runCommand(io, userUsage, async () => {
    const { values, positionals } = parseUserOptions(argv);
    const [word = "", name = "", ...words] = positionals;
    if (values.help === true) {
      io.out(userUsage);
      return 0;
    }
    const command = Object.hasOwn(commands, word) ? commands[word] : undefined;
    if (command === undefined) throw new UsageError(word === "" ? "say what to do" : `there is no command "${word}"`);
    const [least, most] = command.words ?? [1, 1];
    const count = positionals.length - 1;
    if (count === 0 && least > 0) throw new UsageError(`${word} needs a user name`);
    if (count < least || count > most)
      throw new UsageError(`${word} takes ${most === 0 ? "no further word" : counted(most, "word")}, not ${count}`);
    checkOptions(word, command, values);
    await withUserAdmin(
      { configFile: values.config, io, route: command.route?.replace("NAME", name) },
      async (admin) => {
        try {
          await command.run(name, { ...admin, values, words, io });
        } finally {
          for (const { file, line, reason } of await admin.problems()) {
            io.err(`warning: ${file}${line === undefined ? "" : `:${line}`}: ${reason}`);
          }
        }
      },
    );
    return 0;
  });
}

async function addUser(name: string, { users, actor, values, io }: UserCall): Promise<void> {
  const { patch, metadata } = readFields(values);
  const fields = Object.fromEntries(Object.entries(patch).filter(([, value]) => value !== null));
  const given = await givenPassword(values, io);
  const user = { ...fields, username: name, password: given, metadata: mergeMetadata({ metadata: {} }, metadata) };
  // The store validates every value.
  const { account, password } = await users.create(actor, user satisfies NewUser);
  io.out(`${name} is added, with tier ${account.quota_tier}.`);
  if (password !== undefined) io.out(`One-time password (shown only now): ${password}`);
}

async function setFields(name: string, { users, actor, values, words, io }: UserCall): Promise<void> {
  const { patch, metadata } = readFields(values, words);
  if (Object.keys({ ...patch, ...metadata }).length === 0) throw new UsageError("say what to set");
  await users.patch(actor, name, (account) =>
    Object.keys(metadata).length === 0 ? patch : { ...patch, metadata: mergeMetadata(account, metadata) },
  );
  io.out(`${name} is changed.`);
}

async function banUser(name: string, { users, actor, values, io }: UserCall): Promise<void> {
  if (values.until === undefined) throw new UsageError("say --until when");
  const until = readValue(values.until);
  if (!(until instanceof Date)) throw new UsageError("--until takes a time such as 2026-12-31T18:00:00+08:00");
  if (until.getTime() <= systemClock.now()) throw new UsageError("--until lies in the past");
  await users.patch(actor, name, { banned_until: until, ban_reason: values.reason ?? null });
  io.out(`${name} is banned until ${until.toISOString()}.`);
}

async function setActive(name: string, is_active: boolean, { users, actor, io }: UserCall): Promise<void> {
  await users.patch(actor, name, { is_active });
  io.out(`${name} is ${is_active ? "enabled" : "disabled"}.`);
}

async function listUsers(_name: string, { users, values: { search }, io }: UserCall): Promise<void> {
  const now = systemClock.now();
  const row = (name: string, tier: string, state: string, roles: string) =>
    [name.padEnd(32), tier.padEnd(12), state.padEnd(14), roles].join("  ").trimEnd();
  io.out(row("NAME", "TIER", "STATE", "ROLES"));
  for (const account of (await users.list({ limit: Infinity, search })).users) {
    io.out(row(account.username, account.quota_tier, accountState(account, now), account.roles.join(",")));
  }
}

async function givenPassword(values: UserCall["values"], io: CommandIo): Promise<string | undefined> {
  if (values["password-stdin"] !== true) return undefined;
  const password = (await io.readStdin()).replace(/\r?\n$/, "");
  // Nobody could type it.
  if (/[\r\n]/.test(password)) throw new UsageError("expected one line on standard input, with the password");
  return password;
}
