import { resolve } from "node:path";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { openFileUsers } from "../identity/files/file-users.ts";
import { createPasswords } from "../identity/passwords/password.ts";
import { systemClock as clock } from "../lib/clock.ts";
import { closeAll, type Closer } from "../lib/close-all.ts";
import type { Log } from "../lib/log.ts";
import type { Redis } from "../lib/redis/redis.ts";
import { connectState, putBackTokenSecret } from "../open-redis-state.ts";
import { createTiers } from "../quota/tiers.ts";
import { openMemoryLedger, type MemoryLedger } from "../quota/memory/memory-ledger.ts";
import { compareState } from "../replica/compare-state.ts";
import { createDocumentFolder } from "../replica/document-folder.ts";
import { openReplica } from "../replica/replica.ts";
import { readLogPage, streamStart } from "../replica/log-page.ts";
import { copySharedTrust } from "../risk/open-risk.ts";
import { parseCommandLine, runCommand, UsageError } from "./command-line.ts";
import { lockUsers } from "./lock-users.ts";
import type { CommandIo } from "./this-process.ts";

const usage = `Usage: npm run state -- COMMAND

  import    bring what the users folder has into an empty Redis (REDIS_URL): users, sessions, keys, groups, what is used
  export    bring the users folder to what Redis has; one that is empty, or was last used with this Redis
  verify    compare both, and name each difference

Each can be repeated after it was interrupted. No server may use the folder meanwhile. --config FILE says where
config.toml is.`;

const options = { config: { type: "string" }, help: { type: "boolean", short: "h" } } as const;

interface State {
  readonly redis: Redis;
  readonly ledger: MemoryLedger;
  readonly usersDir: string;
  readonly config: Config;
  readonly log: Log;
  readonly io: CommandIo;
}

const commands: Readonly<Record<string, (state: State) => Promise<number>>> = {
  import: importState,
  export: exportState,
  verify,
};

/**
 * Runs one command of `npm run state`.
 *
 * @param argv the arguments after the program's name
 * @returns the exit code: 0 done, 1 refused, failed or different, 2 wrong usage
 */
export function runStateCli(argv: readonly string[], io: CommandIo): Promise<number> {
  return runCommand(io, usage, async () => {
    const { values, positionals } = parseCommandLine(argv, options);
    const [word = "", ...rest] = positionals;
    if (values.help === true) {
      io.out(usage);
      return 0;
    }
    const command = Object.hasOwn(commands, word) ? commands[word] : undefined;
    if (command === undefined) throw new UsageError(word === "" ? "say what to do" : `there is no command "${word}"`);
    if (rest.length > 0) throw new UsageError(`${word} takes no name`);
    const { config, folder } = loadConfig(values.config, io.env, io.cwd);
    const usersDir = resolve(folder, config.storage.users_dir);
    const log = logTo(io);
    const closers: Closer[] = [];
    try {
      const lock = await lockUsers(usersDir, io);
      closers.push(() => lock.release());
      const redis = await connectState({ env: io.env, config, clock, log });
      closers.push(() => redis.close());
      const { quota, storage, usage: kept } = config;
      const ledger = await openMemoryLedger({ usersDir, clock, log, quota, storage, usage: kept });
      closers.push(() => ledger.close());
      return await command({ redis, ledger, usersDir, config, log, io });
    } finally {
      await closeAll(closers);
    }
  });
}

async function importState(state: State): Promise<number> {
  const pages = await Promise.all(state.redis.tags.map((tag) => readLogPage(state.redis, tag, streamStart, 1)));
  // One that was interrupted has left some tags open: these have what the folder has.
  if (pages.every(({ epoch }) => epoch !== "")) {
    state.io.out("Redis has a state already. Comparing:");
    return verify(state);
  }
  await hashPasswords(state);
  await follow(state);
  return verify(state);
}

/** Hashes passwords that people have written into the files, as a server does at its start: Redis gets none of them. */
async function hashPasswords({ config: { auth, quota }, usersDir, log }: State): Promise<void> {
  const passwords = createPasswords({ maxHashes: auth.max_hashes, maxWaiting: 1 });
  const { names } = createTiers(quota);
  const hashPassword = (password: string): Promise<string> => passwords.hash(password);
  const users = await openFileUsers({ usersDir, clock, log, tierNames: () => names, hashPassword, watch: false });
  await users.close();
}

async function exportState(state: State): Promise<number> {
  const pages = await Promise.all(state.redis.tags.map((tag) => readLogPage(state.redis, tag, streamStart, 1)));
  if (pages.some(({ epoch }) => epoch === "")) throw new Error("Redis has no state, or has lost it: nothing to export");
  await follow(state);
  await copySharedTrust(state.redis, state.usersDir);
  return verify(state);
}

/** Brings both together, as a server does at its start. */
async function follow({ redis, ledger, usersDir, log }: State): Promise<void> {
  const putBack = (tag: string): Promise<void> => putBackTokenSecret(redis, usersDir, tag);
  const replica = await openReplica({ redis, usersDir, ledger, clock, log, putBack });
  await replica.close();
}

async function verify({ redis, ledger, usersDir, io }: State): Promise<number> {
  let differences = 0;
  const documents = createDocumentFolder(usersDir);
  for await (const difference of compareState(redis, ledger.follower, documents)) {
    io.out(difference);
    differences++;
  }
  io.out(differences === 0 ? "The users folder and Redis have the same." : `${differences} differences.`);
  return differences === 0 ? 0 : 1;
}

function logTo(io: CommandIo): Log {
  const say = (facts: object, message: string): void => {
    const { err } = { err: undefined, ...facts } as { readonly err?: unknown };
    io.err(err instanceof Error ? `${message}: ${err.message}` : message);
  };
  return { debug: () => undefined, info: () => undefined, warn: say, error: say };
}
