import { join } from "node:path";
import { parse, stringify } from "smol-toml";
import { z } from "zod";
import { Amounts } from "../amounts.ts";
import type { Window } from "./period-counts.ts";
import { countMetrics, forEachMetric, sinceVersion } from "../metrics.ts";
import { isEndless, mapPeriods, periodNames, type Per, type PeriodAt } from "../periods.ts";
import { NewerVersionError } from "../../lib/journal/journal-format.ts";
import { plainIssue } from "../../lib/plain-issue.ts";
import { recordVersion } from "./charge-record.ts";
import { maxRowsOf, type OpenDay, UsageDay } from "../usage/usage-history.ts";
import { fromKeptRow, keptRowSchema, toKeptRow } from "../usage/usage-row.ts";
import { totalsName, type UsageTotals } from "../usage/usage-totals.ts";
import { UserQuota } from "./user-quota.ts";

const amount = z.int().min(0);
/** What a metric that is newer than the file has counted in it is 0. */
const used = {
  ...forEachMetric(countMetrics, (metric) => (sinceVersion(metric) === 1 ? amount : amount.default(0))),
  cost: z.record(z.string().regex(/^[A-Z]{3}$/), amount),
};
const epoch = new Date(0).toISOString();
const period = z
  // Earlier versions left out the start of a period that a clock at 1970 had begun.
  .strictObject({ start: z.iso.datetime().default(epoch), end: z.iso.datetime(), ...used })
  .refine(({ start, end }) => Date.parse(start) < Date.parse(end), "expected an end after its start");
/** The total has no end, and a start only after a reset. */
const endless = z.strictObject({ start: z.iso.datetime().optional(), ...used });

const day = { day: z.iso.date(), models: z.array(keptRowSchema.omit({ day: true })) };
const head = { format: z.int().min(1).max(recordVersion), covers_seq: amount };

type StoredPeriod = z.output<typeof period> | z.output<typeof endless>;
const periodsShape = mapPeriods((per): z.ZodType<StoredPeriod> => (isEndless(per) ? endless : period));
const periodsSchema = z.strictObject(periodsShape);

const snapshotSchema = z.strictObject({
  ...head,
  username: z.string(),
  ...periodsShape,
  keys: z.record(z.string().min(1).max(64), periodsSchema).default(() => ({})),
  history: z.array(z.strictObject({ ...day, start: z.iso.datetime(), end: z.iso.datetime() })).default(() => []),
});

/** How far the shared logs have been counted. */
const positions = z.record(z.string().regex(/^\w{1,8}\.\w{0,16}$/), amount);
const totalsSchema = z.strictObject({
  ...head,
  positions: positions.default(() => ({})),
  positions_seq: amount.default(0),
  history: z.array(z.strictObject(day)),
});

/** A user's quota as of journal record `coversSeq`. */
export interface Snapshot {
  readonly user: UserQuota;
  readonly coversSeq: number;
}

/** The folder of the usage archive and the totals. */
export function usageDir(usersDir: string): string {
  return join(usersDir, "usage");
}

/** The path of the file with a user's quota. `name` has been validated. */
export function snapshotPath(usersDir: string, name: string): string {
  return join(usersDir, `${name}.quota.toml`);
}

/** The path of the file with the usage totals. */
export function totalsPath(usersDir: string): string {
  return join(usageDir(usersDir), `${totalsName}.toml`);
}

/** The text of users/NAME.quota.toml. */
export function encodeSnapshot(user: UserQuota, coversSeq: number): string {
  const begun = [...user.keys].filter(([, counts]) => counts.hasBegun);
  const keys = begun.map(([id, counts]) => [id, periodsOf(counts.windows)] as const);
  const history = user.history.days.map(({ day, start, end }) => ({
    day: day.date,
    start: new Date(start).toISOString(),
    end: new Date(end).toISOString(),
    models: modelsOf(day),
  }));
  return (
    "# Written by the proxy, which overwrites changes. What was used in the running periods; cost in nano-units (1e-9).\n" +
    stringify({
      format: recordVersion,
      username: user.name,
      covers_seq: coversSeq,
      ...periodsOf(user.counts.windows),
      ...(keys.length === 0 ? {} : { keys: Object.fromEntries(keys) }),
      history,
    }) +
    "\n"
  );
}

/** Reads the file of user `name`. Throws an error that names the invalid key, or the line of the syntax error. */
export function decodeSnapshot(text: string, name: string, periodAt: PeriodAt): Snapshot {
  const result = snapshotSchema.safeParse(parseKnown(text));
  if (!result.success) throw new Error(reasonsOf(result.error));
  const { username, covers_seq: coversSeq, history } = result.data;
  if (username !== name) throw new Error(`it is about user ${JSON.stringify(username)}`);
  const windows = windowsOf(result.data);
  const keys = new Map(Object.entries(result.data.keys).map(([id, stored]) => [id, windowsOf(stored)]));
  const days = history.map(({ day: date, start, end, models }): OpenDay => ({
    day: dayOf(date, models, maxRowsOf(name)),
    start: Date.parse(start),
    end: Date.parse(end),
  }));
  return { user: new UserQuota(name, periodAt, { windows, keys, days }), coversSeq };
}

/** The last journal record covered by a user's file; 0 if it can't be read. */
export function coversSeqOf(text: string): number {
  return Number(/^covers_seq = (\d{1,16})$/m.exec(text)?.[1] ?? 0);
}

/** How far shared logs have been counted. */
export interface CoveredLogs {
  /** By log, the number of its last record that is in the files of all accounts. */
  readonly positions: ReadonlyMap<string, number>;
  /** The last journal record by then. */
  readonly seq: number;
}

/** The text of users/usage/_totals.toml: the days that the archive does not have. */
export function encodeTotals(
  totals: UsageTotals,
  coversSeq: number,
  { positions, seq }: CoveredLogs = { positions: new Map(), seq: 0 },
): string {
  const open = totals.days.filter(({ state }) => state !== "archived");
  const history = open.map((day) => ({ day: day.date, models: modelsOf(day) }));
  return (
    "# Written by the proxy, which overwrites changes. What all users have used together; cost in nano-units (1e-9).\n" +
    stringify({
      format: recordVersion,
      covers_seq: coversSeq,
      ...(positions.size === 0 ? {} : { positions: Object.fromEntries(positions), positions_seq: seq }),
      history,
    }) +
    "\n"
  );
}

/** The file of totals. */
interface StoredTotals {
  readonly days: readonly UsageDay[];
  /** The last journal record that it covers. */
  readonly coversSeq: number;
  readonly logs: CoveredLogs;
}

/** Reads the file of totals. Throws as decodeSnapshot. */
export function decodeTotals(text: string): StoredTotals {
  const result = totalsSchema.safeParse(parseKnown(text));
  if (!result.success) throw new Error(reasonsOf(result.error));
  const days = result.data.history.map(({ day: date, models }) => dayOf(date, models));
  const { covers_seq: coversSeq, positions: stored, positions_seq: seq } = result.data;
  return { days, coversSeq, logs: { positions: new Map(Object.entries(stored)), seq } };
}

/** Throws NewerVersionError, which says more than the keys that an older schema doesn't know. */
function parseKnown(text: string): unknown {
  const file = parse(text);
  const { format } = file;
  if (typeof format === "number" && format > recordVersion) throw new NewerVersionError(format, recordVersion);
  return file;
}

function modelsOf({ rows }: UsageDay): readonly object[] {
  return rows.map((row) => Object.fromEntries(Object.entries(toKeptRow(row)).filter(([key]) => key !== "day")));
}

function dayOf(
  date: string,
  models: readonly Omit<z.infer<typeof keptRowSchema>, "day">[],
  maxRows?: number,
): UsageDay {
  return new UsageDay(
    date,
    models.map((row) => fromKeptRow({ ...row, day: date })),
    maxRows,
  );
}

function periodsOf(windows: readonly Window[]): Readonly<Record<string, object>> {
  const entries = windows.map(({ per, start, end, used: amounts }) => {
    const bounds = {
      ...(start === 0 && isEndless(per) ? {} : { start: new Date(start).toISOString() }),
      ...(end === Infinity ? {} : { end: new Date(end).toISOString() }),
    };
    const counts = forEachMetric(countMetrics, (metric) => amounts[metric]);
    return [per, { ...bounds, ...counts, cost: Object.fromEntries(amounts.costs) }] as const;
  });
  return Object.fromEntries(entries);
}

function windowsOf(stored: Readonly<Record<Per, StoredPeriod>>): readonly Window[] {
  return periodNames.map((per) => windowOf(per, stored[per]));
}

function windowOf(per: Per, stored: StoredPeriod): Window {
  const amounts = new Amounts();
  for (const metric of countMetrics) amounts[metric] = stored[metric];
  for (const [currency, nano] of Object.entries(stored.cost)) amounts.costs.set(currency, nano);
  const start = stored.start === undefined ? 0 : Date.parse(stored.start);
  return { per, start, end: "end" in stored ? Date.parse(stored.end) : Infinity, used: amounts };
}

function reasonsOf({ issues }: z.ZodError): string {
  return issues.map(({ path, message }) => `${path.join(".")}: ${plainIssue(message)}`).join("; ");
}
