import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { loadConfig } from "../config/load.ts";
import { systemClock } from "../lib/clock.ts";
import { readJournal, type JournalContent } from "../lib/journal/journal-folder.ts";
import { JournalDamage } from "../lib/journal/journal-reader.ts";
import { streamJournal } from "../lib/journal/journal-stream.ts";
import { formatNano } from "../lib/money.ts";
import { decodeLedgerRecord } from "../quota/memory/charge-record.ts";
import { journalFolders } from "../quota/memory/journal-archive.ts";
import { readCoveredSeq } from "../quota/memory/recovery.ts";
import { counted, parseCommandLine, runCommand, UsageError } from "./command-line.ts";
import { carryOut, planSalvage, type SalvagePlan } from "./journal-salvage.ts";
import { lockUsers } from "./lock-users.ts";
import type { CommandIo } from "./this-process.ts";

const usage = `Usage: npm run journal -- COMMAND [OPTIONS]

  verify   read the journal as a start would, and say what is in it
  dump     all records as lines of JSON         --user NAME  --archived  those in journal/archive as well
  repair   show what a damaged journal has lost  --yes  write it anew without that, keeping the old files

--users DIR says where the users folder is; else --config FILE, as for npm start. verify and dump change nothing and
may run beside the server; repair needs it stopped.`;

const options = {
  users: { type: "string" },
  config: { type: "string" },
  user: { type: "string" },
  archived: { type: "boolean" },
  yes: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

/**
 * Runs one command of `npm run journal`.
 *
 * @param argv the arguments after the program's name
 * @returns the exit code: 0 no problems, 1 damage or failure, 2 wrong usage
 */
export function runJournalCli(argv: readonly string[], io: CommandIo): Promise<number> {
  return runCommand(io, usage, async () => {
    const { values, positionals } = parseCommandLine(argv, options);
    if (values.help === true) {
      io.out(usage);
      return 0;
    }
    const [command, ...rest] = positionals;
    if (rest.length > 0) throw new UsageError(`${command ?? ""} takes no further word`);
    const usersDir = values.users === undefined ? usersOf(values.config, io) : resolve(io.cwd, values.users);
    const folder = join(usersDir, "journal");
    if (command === "verify") return verify(folder, await readCoveredSeq(usersDir), io);
    if (command === "dump") return dump(folder, values.user, values.archived === true, io);
    if (command === "repair") return repair(usersDir, values.yes === true, io);
    throw new UsageError(command === undefined ? "say what to do" : `there is no command "${command}"`);
  });
}

function usersOf(configFile: string | undefined, io: CommandIo): string {
  const { config, folder } = loadConfig(configFile, io.env, io.cwd);
  return resolve(folder, config.storage.users_dir);
}

function verify(folder: string, coveredSeq: number, io: CommandIo): number {
  const kinds = new Map<string, number>();
  const users = new Set<string>();
  let [first, last] = [0, 0];
  const content = readAll(folder, coveredSeq, io, (seq, payload) => {
    const record = decodeLedgerRecord(payload);
    const kind = record?.kind ?? "probe";
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    if (record !== undefined) users.add(record.user);
    first ||= seq;
    last = seq;
  });
  if (content === undefined) return 1;
  const { records, segments, torn } = content;
  const numbers = records === 0 ? "" : `, numbers ${first} to ${last}`;
  const files = `${counted(records, "record")} in ${counted(segments.length, "file")}`;
  io.out(`${folder}: ${files}${numbers}, of ${counted(users.size, "user")}`);
  for (const [kind, count] of kinds) io.out(`  ${kind.padEnd(8)}${count}`);
  if (torn !== undefined) {
    io.out(
      `${torn.file}: ${torn.bytes} bytes from byte ${torn.offset} on are an interrupted write that was never ` +
        "acknowledged; the next start cuts them off",
    );
  }
  return 0;
}

/** Shows all readable records, as fast as they are read, and reports the rest. */
async function dump(folder: string, user: string | undefined, archived: boolean, io: CommandIo): Promise<number> {
  let code = 0;
  const failed = (message: string): void => {
    io.err(`error: ${message}`);
    code = 1;
  };
  /** The line of a record, with its end; "" for a record that is not to be shown. */
  const lineOf = (seq: number, payload: string): string => {
    try {
      const record = decodeLedgerRecord(payload);
      if (record === undefined || (user !== undefined && record.user !== user)) return "";
      return `${JSON.stringify(readable({ seq, ...record }))}\n`;
    } catch (error) {
      failed(`record ${seq}: ${error instanceof Error ? error.message : String(error)}`);
      return "";
    }
  };
  async function* lines(): AsyncGenerator<string> {
    for await (const piece of streamJournal(archived ? journalFolders(folder) : [folder])) {
      if (piece.kind === "records") yield piece.records.map(({ seq, payload }) => lineOf(seq, payload)).join("");
      else if (piece.kind === "damage" && piece.isTorn === true) io.err(`${piece.path}: ${piece.message}`);
      else if (piece.kind === "damage") failed(`${piece.path}: ${piece.message}`);
      else if (piece.kind === "gap") {
        const missing = `records ${piece.first} to ${piece.last}`;
        // No error: the archive may have been off for a while.
        if (archived) io.err(`${missing} are not in the archive`);
        // The oldest ones are in snapshots.
        else if (piece.first > 1) failed(`${missing} are missing`);
      }
    }
  }
  // A folder that isn't there is an error, no empty journal.
  await readdir(folder);
  await io.outPieces(lines());
  return code;
}

/** Undefined, with the reason printed, if the journal is damaged. */
function readAll(
  folder: string,
  coveredSeq: number,
  io: CommandIo,
  onRecord: (seq: number, payload: string) => void,
): JournalContent | undefined {
  try {
    return readJournal(folder, onRecord, undefined, coveredSeq);
  } catch (error) {
    if (!(error instanceof JournalDamage)) throw error;
    io.err(`error: ${error.message}`);
    io.err("npm run journal -- repair shows what can be saved.");
    return undefined;
  }
}

/** A record in the external format: snake case, times as strings, costs in units of their currency. */
function readable(value: object): Readonly<Record<string, unknown>> {
  const entries = Object.entries(value).map(([key, inner]: [string, unknown]) => [
    key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    readableValue(key, inner),
  ]);
  return Object.fromEntries(entries) as Record<string, unknown>;
}

function readableValue(key: string, value: unknown): unknown {
  if (typeof value === "object" && value !== null) return readable(value);
  if (typeof value !== "number") return value;
  if (key === "at" || key === "settledAt") return new Date(value).toISOString();
  return key === "cost" ? formatNano(value) : value;
}

async function repair(usersDir: string, isMeant: boolean, io: CommandIo): Promise<number> {
  const folder = join(usersDir, "journal");
  const lock = await lockUsers(usersDir, io);
  try {
    const coveredSeq = await readCoveredSeq(usersDir);
    const damage = findDamage(folder, coveredSeq);
    if (damage === undefined) {
      io.out(`${folder}: there is nothing to repair`);
      return 0;
    }
    io.out(`${damage.file}: ${damage.reason}`);
    const plan = await planSalvage(folder, decodeLedgerRecord, coveredSeq);
    show(plan, isMeant, io);
    if (!isMeant) {
      io.out("Nothing has been changed. Add --yes to do it.");
      return 1;
    }
    const suffix = `.damaged-${new Date(systemClock.now()).toISOString().replace(/[-:]|\.\d+/g, "")}`;
    for (const file of await carryOut(folder, plan, suffix)) io.out(`kept aside: ${file}`);
    return verify(folder, coveredSeq, io);
  } finally {
    await lock.release();
  }
}

/** The first damage that would prevent a start. */
function findDamage(folder: string, coveredSeq: number): JournalDamage | undefined {
  try {
    readJournal(folder, (_seq, payload) => decodeLedgerRecord(payload), undefined, coveredSeq);
    return undefined;
  } catch (error) {
    if (error instanceof JournalDamage) return error;
    throw error;
  }
}

/** Lines may contain anything now, so they are shown as JSON. */
function show({ kept, lost, rewrites }: SalvagePlan, isMeant: boolean, io: CommandIo): void {
  for (const { file, offset, bytes, reason, text } of lost) {
    io.out(`lost: ${file}, byte ${offset}, ${bytes} bytes: ${reason}: ${JSON.stringify(text)}`);
  }
  io.out(`${kept} records ${isMeant ? "are" : "would be"} kept, ${lost.length} lines given up`);
  for (const { file } of rewrites) io.out(`${isMeant ? "written" : "to be written"} anew: ${file}`);
}
