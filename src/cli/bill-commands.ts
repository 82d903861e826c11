import { join, resolve } from "node:path";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { systemClock } from "../lib/clock.ts";
import { shiftDate } from "../lib/dates.ts";
import { streamJournal } from "../lib/journal/journal-stream.ts";
import { formatNano } from "../lib/money.ts";
import { userName } from "../quota/accounts.ts";
import { addSaturated } from "../quota/amounts.ts";
import { decodeLedgerRecord } from "../quota/memory/charge-record.ts";
import type { RecordedPiece } from "../quota/ledger.ts";
import { journalFolders } from "../quota/memory/journal-archive.ts";
import { readUsage } from "../quota/memory/read-usage.ts";
import { createPeriods } from "../quota/periods.ts";
import { checkBill, type BillDifference } from "../quota/pricing/bill-check.ts";
import { pricesById } from "../quota/pricing/pricing.ts";
import { type ExportedRow, type ExportQuery, exportUsage } from "../quota/usage/usage-export.ts";
import { exportFormats, exportText } from "../quota/usage/usage-export-text.ts";
import { createZone, momentSchema, spanOfMoments } from "../quota/zone.ts";
import { readLacks, withLacks } from "../replica/lacking-records.ts";
import { parseCommandLine, runCommand, UsageError } from "./command-line.ts";
import { type CommandIo, silent } from "./this-process.ts";

const usage = `Usage: npm run bill -- COMMAND [OPTIONS]

  verify   work out the cost of each request again, from its tokens and the prices of the config; compare the sums of
           each user with the usage history       --user NAME
  export   each charged request and each change by hand, as GET /admin/usage/export has them
           --format ndjson|csv  --user NAME  --group NAME  --key ID  --model NAME  --provider NAME

--from and --to are days such as 2026-11-01, both included, in quota.timezone. export also takes times such as
2026-11-01T09:00:00Z, of which --to is excluded. --config FILE, as for npm start; --users DIR says where the users folder
is. Nothing is changed, and the server may run. The exit code is 1 where something differs or is missing.`;

const options = {
  from: { type: "string" },
  to: { type: "string" },
  user: { type: "string" },
  group: { type: "string" },
  key: { type: "string" },
  model: { type: "string" },
  provider: { type: "string" },
  format: { type: "string" },
  users: { type: "string" },
  config: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

type Values = Partial<Record<Exclude<keyof typeof options, "help">, string>>;

/** Where a command looks. */
interface Bill {
  readonly config: Config;
  readonly usersDir: string;
  readonly values: Values;
  readonly io: CommandIo;
}

/**
 * Runs one command of `npm run bill`.
 *
 * @param argv the arguments after the program's name
 * @returns the exit code: 0 no problems, 1 a difference, something missing or a failure, 2 wrong usage
 */
export function runBillCli(argv: readonly string[], io: CommandIo): Promise<number> {
  return runCommand(io, usage, async () => {
    const {
      values: { help, ...values },
      positionals: [command, ...rest],
    } = parseCommandLine(argv, options);
    if (help === true) {
      io.out(usage);
      return 0;
    }
    if (rest.length > 0) throw new UsageError(`${command ?? ""} takes no further word`);
    const run = command === "verify" ? verify : command === "export" ? exportAll : undefined;
    if (run === undefined)
      throw new UsageError(command === undefined ? "say what to do" : `there is no command "${command}"`);
    checkMoments(values);
    const { config, folder } = loadConfig(values.config, io.env, io.cwd);
    const usersDir =
      values.users === undefined ? resolve(folder, config.storage.users_dir) : resolve(io.cwd, values.users);
    return run({ config, usersDir, values, io });
  });
}

/** Throws UsageError. */
function checkMoments(values: Values): void {
  for (const name of ["from", "to"] as const) {
    const problem = values[name] === undefined ? undefined : momentSchema.safeParse(values[name]).error;
    if (problem !== undefined)
      throw new UsageError(`--${name} ${values[name] ?? ""}: ${problem.issues[0]?.message ?? ""}`);
  }
}

/** Throws UsageError. */
function spanOf({ config, values }: Bill): Pick<ExportQuery, "from" | "to"> {
  const span = spanOfMoments(values, createZone(config.quota.timezone));
  if (span.from !== undefined && span.to !== undefined && span.from >= span.to)
    throw new UsageError(`--from ${values.from ?? ""} is after --to ${values.to ?? ""}`);
  return span;
}

async function* piecesOf({ usersDir }: Bill): AsyncGenerator<RecordedPiece> {
  yield* withLacks(streamJournal(journalFolders(join(usersDir, "journal"))), await readLacks(usersDir));
}

async function exportAll(bill: Bill): Promise<number> {
  const { values, io } = bill;
  const { user, group, key: apiKey, model, provider, format: wanted = "ndjson" } = values;
  const format = exportFormats.find((one) => one === wanted);
  if (format === undefined) throw new UsageError(`--format ${wanted}: expected ${exportFormats.join(" or ")}`);
  const items = exportUsage(piecesOf(bill), { ...spanOf(bill), user, group, apiKey, model, provider });
  let problems = 0;
  const watched = async function* () {
    for await (const item of items) {
      if (item.kind === "problem") {
        problems++;
        io.err(`error: ${item.message}`);
      }
      yield item;
    }
  };
  await io.outPieces(exportText(watched(), format));
  return problems > 0 ? 1 : 0;
}

/** What was counted for a user: nano-units by currency, requests and tokens, of chats and of changes by hand. */
type Sums = Map<string, number>;

async function verify(bill: Bill): Promise<number> {
  const { config, usersDir, values, io } = bill;
  for (const name of ["group", "key", "model", "provider", "format"] as const)
    if (values[name] !== undefined) throw new UsageError(`verify takes no --${name}`);
  if (values.user !== undefined && !userName.test(values.user)) throw new UsageError(`${values.user} is no user name`);
  const { timezone, monthly_reset_day: monthlyResetDay } = config.quota;
  const keepDays = config.usage.keep_days;
  const periodAt = createPeriods({ timezone, monthlyResetDay });
  const dayOf = (at: number): string => periodAt("day", at).date;
  // First: it is compared with the records up to where it is.
  const ledger = await readUsage({ usersDir, periodAt, keepDays, log: silent });
  const days = await daysToVerify(bill, dayOf, keepDays);
  spanOf(bill);
  if (days.from > days.to) {
    io.err(
      `error: there is nothing to verify from ${days.from} to ${days.to}: the records that are kept begin too late`,
    );
    return 1;
  }
  const prices = pricesById({ models: config.models, timezone });
  const query = { ...spanOf({ ...bill, values: days }), user: values.user };
  const counted = new Map<string, Sums>();
  let [rows, differences, problems] = [0, 0, 0];
  for await (const item of exportUsage(piecesOf(bill), query, ledger.lastSeq)) {
    if (item.kind === "problem") {
      problems++;
      io.err(`error: ${item.message}`);
    } else if (item.kind === "row") {
      rows++;
      if (item.row.user !== "") addRow(sumsOf(counted, item.row.user), item.row);
      const difference = checkBill(item.row, prices);
      if (difference === undefined) continue;
      differences++;
      io.out(`differs: ${toText(difference)}`);
    }
  }
  for (const { file, reason } of ledger.problems) {
    problems++;
    io.err(`error: ${file} cannot be used: ${reason}`);
  }
  const known = new Map<string, Sums>();
  const span = { from: days.from, to: days.to };
  for await (const { user, row } of ledger.usageOfAll(span)) {
    if (values.user !== undefined && user !== values.user) continue;
    const sums = sumsOf(known, user);
    addTo(sums, { requests: row.requests, tokens: row.tokens, ...row.cost });
    const { cost, ...changes } = row.adjusted ?? { requests: 0, tokens: 0, cost: {} };
    addTo(sums, byHand({ ...changes, ...cost }));
  }
  for (const user of [...new Set([...counted.keys(), ...known.keys()])].sort()) {
    const [ours, theirs] = [sumsOf(counted, user), sumsOf(known, user)];
    const isSame = textOf(ours) === textOf(theirs);
    if (!isSame) differences++;
    io.out(`${user}: ${textOf(ours)}; the usage history has ${isSame ? "the same" : `${textOf(theirs)}: DIFFERS`}`);
  }
  const verdict = differences + problems === 0 ? "nothing differs" : `${differences} differences, ${problems} problems`;
  const all = rows === 1 ? "1 request or change" : `${rows} requests and changes`;
  io.out(`${days.from} to ${days.to} (${timezone}): ${all} worked out again, ${verdict}`);
  return differences + problems === 0 ? 0 : 1;
}

/** By default all days of which every record and the usage history are kept. */
async function daysToVerify(bill: Bill, dayOf: (at: number) => string, keepDays: number) {
  const { values } = bill;
  for (const name of ["from", "to"] as const)
    if ((values[name]?.length ?? 10) !== 10)
      throw new UsageError(`--${name} ${values[name] ?? ""}: verify takes whole days`);
  const today = dayOf(systemClock.now());
  const to = values.to ?? today;
  if (values.from !== undefined) return { from: values.from, to };
  const keptFrom = await firstKept(bill);
  const oldest = shiftDate(today, 1 - keepDays);
  const whole = keptFrom === undefined ? oldest : shiftDate(dayOf(keptFrom), 1);
  return { from: whole > oldest ? whole : oldest, to };
}

/** The time from which on all records are there, in ms since the epoch; undefined: all that ever were. */
async function firstKept(bill: Bill): Promise<number | undefined> {
  const mayLackMore = (await readLacks(bill.usersDir)).some(({ isStart }) => isStart);
  let isShort = false;
  let keptFrom: number | undefined;
  for await (const piece of piecesOf(bill)) {
    if ((piece.kind === "gap" && piece.first === 1) || (piece.kind === "lack" && piece.isStart)) {
      isShort = true;
      keptFrom = undefined;
    }
    if (piece.kind !== "records") continue;
    if (!mayLackMore && (!isShort || keptFrom !== undefined)) return keptFrom;
    if (isShort) keptFrom ??= firstTimeOf(piece.records);
  }
  return keptFrom;
}

function firstTimeOf(records: readonly { readonly payload: string }[]): number | undefined {
  for (const { payload } of records) {
    const record = decodeLedgerRecord(payload);
    if (record !== undefined) return record.kind === "settle" ? record.settledAt : record.at;
  }
  return undefined;
}

function sumsOf(all: Map<string, Sums>, user: string): Sums {
  let sums = all.get(user);
  if (sums === undefined) all.set(user, (sums = new Map<string, number>()));
  return sums;
}

function addRow(sums: Sums, { kind, requests, tokens, cost, currency }: ExportedRow): void {
  const figures = { requests, tokens, [currency]: cost };
  addTo(sums, kind === "request" ? figures : byHand(figures));
}

function byHand(figures: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(figures).map(([name, value]) => [`${name} by hand`, value]));
}

function addTo(sums: Sums, figures: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(figures)) sums.set(name, addSaturated(sums.get(name) ?? 0, value));
}

/** Without what is 0: "3 requests, 120 tokens, 0.0042 CNY". */
function textOf(sums: Sums): string {
  const texts = [...sums]
    .filter(([, value]) => value !== 0)
    .sort(([a], [b]) => (order(a) === order(b) ? (a < b ? -1 : 1) : order(a) - order(b)))
    .map(([name, value]) => `${/^[A-Z]/.test(name) ? formatNano(value) : value} ${name}`);
  return texts.length === 0 ? "nothing" : texts.join(", ");
}

function order(name: string): number {
  const place = name.startsWith("requests") ? 0 : name.startsWith("tokens") ? 1 : 2;
  return name.endsWith("by hand") ? place + 3 : place;
}

function toText({ row, expected, reason }: BillDifference): string {
  const { requestId, user, at, model, price, cost, currency } = row;
  const should = expected === undefined ? "" : `, by the prices ${formatNano(expected)}`;
  const facts = [requestId, user, new Date(at).toISOString(), model, price].join("  ");
  return `${facts}: ${formatNano(cost)} ${currency}${should}: ${reason}`;
}
