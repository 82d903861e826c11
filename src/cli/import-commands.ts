import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { openFileUsers } from "../identity/files/file-users.ts";
import { createPasswords } from "../identity/passwords/password.ts";
import { isUserName } from "../identity/user-name.ts";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { systemClock } from "../lib/clock.ts";
import { noCharge } from "../quota/amounts.ts";
import { openMemoryLedger } from "../quota/memory/memory-ledger.ts";
import { createTiers, type Tiers } from "../quota/tiers.ts";
import { parseCommandLine, runCommand, UsageError } from "./command-line.ts";
import { planImport, type ImportRow } from "./import-plan.ts";
import { readPredecessor } from "./predecessor.ts";
import { lockUsers } from "./lock-users.ts";
import { type CommandIo, silent as log } from "./this-process.ts";

const usage = `Usage: npm run import -- DIR [--apply] [--config FILE]

Takes over users and quotas of the predecessor: DIR/data/users/*.toml and DIR/data/quotas/*.json. Without --apply it only
says what would happen. With --apply (the server must be stopped) it makes the accounts, with hashed passwords, and
counts what was used this month. Accounts that exist are left as they are, so it may be run again. It needs
state.backend = "files"; npm run state -- import brings what it has made into an empty Redis.`;

const options = {
  apply: { type: "boolean" },
  config: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

/**
 * Runs `npm run import`.
 *
 * @param argv the arguments after the program's name
 * @returns the exit code: 0 all users are, or can be, imported; 1 there are problems; 2 wrong usage
 */
export function runImportCli(argv: readonly string[], io: CommandIo): Promise<number> {
  return runCommand(io, usage, async () => {
    const { values, positionals } = parseCommandLine(argv, options);
    if (values.help === true) {
      io.out(usage);
      return 0;
    }
    const [dir, ...rest] = positionals;
    if (dir === undefined || rest.length > 0) throw new UsageError("say which folder");
    const { config, folder } = loadConfig(values.config, io.env, io.cwd);
    if (config.state.backend === "redis") {
      throw new Error(
        'import works on the users folder, but state.backend is "redis": import with state.backend = "files" into an ' +
          "empty users folder, and bring that into an empty Redis with npm run state -- import",
      );
    }
    const target: Target = {
      config,
      tiers: createTiers(config.quota),
      usersDir: resolve(folder, config.storage.users_dir),
    };
    const from = resolve(io.cwd, dir);
    return values.apply === true ? locked(target, io, () => apply(from, target, io)) : dryRun(from, target, io);
  });
}

/** The destination of the import. */
interface Target {
  readonly config: Config;
  readonly tiers: Tiers;
  readonly usersDir: string;
}

async function dryRun(from: string, target: Target, io: CommandIo): Promise<number> {
  const { rows, problems } = await plan(from, target, io);
  io.out("Nothing has been changed. Add --apply to do it.");
  return rows.some(({ problem }) => problem !== undefined) || problems > 0 ? 1 : 0;
}

/** Reads, plans and shows the import. `problems` are files that cannot be used. */
async function plan(from: string, { config, tiers, usersDir }: Target, io: CommandIo) {
  const old = await readPredecessor(from);
  const rows = planImport(old, {
    tiers,
    timezone: config.quota.timezone,
    now: systemClock.now(),
    exists: (name) => isUserName(name) && existsSync(join(usersDir, `${name}.toml`)),
  });
  io.out(line("NAME", "TIER", "USED", "WHAT HAPPENS"));
  for (const row of rows) io.out(line(shown(row.name), shown(row.tier), String(row.used), outcomeOf(row)));
  for (const { file, reason } of old.bad) io.err(`problem: ${file}: ${reason}`);
  const orphans = [...old.quotas.keys()].filter((name) => !old.users.some(({ username }) => username === name));
  for (const name of orphans) io.err(`problem: the quota of ${shown(name)}: there is no such user`);
  return { rows, problems: old.bad.length + orphans.length };
}

async function locked({ usersDir }: Target, io: CommandIo, work: () => Promise<number>): Promise<number> {
  await mkdir(usersDir, { recursive: true, mode: 0o700 });
  const lock = await lockUsers(usersDir, io);
  try {
    return await work();
  } finally {
    await lock.release();
  }
}

async function apply(from: string, target: Target, io: CommandIo): Promise<number> {
  const { config, tiers, usersDir } = target;
  const { rows, problems } = await plan(from, target, io);
  const { auth, quota, storage, usage: usageConfig } = config;
  const passwords = createPasswords({ maxHashes: auth.max_hashes, maxWaiting: 1 });
  const store = await openFileUsers({
    usersDir,
    tierNames: () => tiers.names,
    hashPassword: (password) => passwords.hash(password),
    clock: systemClock,
    log,
    watch: false,
  });
  const ledger = await openMemoryLedger({ usersDir, clock: systemClock, log, quota, storage, usage: usageConfig });
  const note = { reason: "import", by: "npm run import" };
  let failed = rows.filter(({ problem }) => problem !== undefined).length + problems;
  try {
    for (const { name, account, used, newPassword } of rows) {
      if (account === undefined) continue;
      try {
        // The count first: if stopped between the two, a second run finds no account and only adds what is missing.
        const [month] = ledger.buckets(name, [{ metric: "requests", per: "month", max: 0 }]);
        const missing = used - (month?.used ?? 0);
        const delta = { ...noCharge(quota.currency), requests: missing };
        if (missing > 0) await ledger.adjust(name, delta, note);
        // Before it is in force: if stopped between the two, a second run makes another one, and none is lost.
        if (newPassword !== undefined) io.out(`${name} gets a password (shown only now): ${newPassword}`);
        await store.create(account);
        io.out(`${name} is imported.`);
      } catch (error) {
        failed++;
        io.err(`problem: ${name}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  } finally {
    await ledger.close();
    await store.close();
  }
  return failed === 0 ? 0 : 1;
}

function outcomeOf({ problem, account, notes }: ImportRow): string {
  if (problem !== undefined) return `PROBLEM: ${problem}`;
  return account === undefined ? notes.join("; ") : ["is made", ...notes].join("; ");
}

function line(name: string, tier: string, used: string, rest: string): string {
  return [name.padEnd(32), tier.padEnd(12), used.padStart(10), rest].join("  ");
}

/** Names come from files that anyone may have written: unusual ones are shown as JSON. */
function shown(text: string): string {
  return /^[\w.@-]{1,40}$/.test(text) ? text : JSON.stringify(text.slice(0, 40));
}
