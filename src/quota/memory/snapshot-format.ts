import { join } from "node:path";
import { parse, stringify } from "smol-toml";
import { z } from "zod";
import { Amounts } from "../amounts.ts";
import type { Per } from "../ledger.ts";
import type { Window } from "./period-counts.ts";
import type { PeriodAt } from "../period.ts";
import { UsageDay } from "../usage/usage-day.ts";
import type { OpenDay } from "../usage/usage-history.ts";
import { fromKeptRow, keptRowSchema, toKeptRow } from "../usage/usage-row.ts";
import { totalsName, type UsageTotals } from "../usage/usage-totals.ts";
import { UserQuota } from "./user-quota.ts";

const amount = z.int().min(0);
const used = { requests: amount, tokens: amount, cost: z.record(z.string().regex(/^[A-Z]{3}$/), amount) };
const period = z
  .strictObject({ start: z.iso.datetime(), end: z.iso.datetime(), ...used })
  .refine(({ start, end }) => Date.parse(start) < Date.parse(end), "expected an end after its start");

const day = { day: z.iso.date(), models: z.array(keptRowSchema.omit({ day: true })) };
const head = { format: z.literal(1), covers_seq: amount };

const periods = {
  day: period,
  week: period,
  month: period,
  total: z.strictObject({ start: z.iso.datetime().optional(), ...used }),
};

const periodsSchema = z.strictObject(periods);

const snapshotSchema = z.strictObject({
  ...head,
  username: z.string(),
  ...periods,
  keys: z.record(z.string().min(1).max(64), periodsSchema).default(() => ({})),
  history: z.array(z.strictObject({ ...day, start: z.iso.datetime(), end: z.iso.datetime() })).default(() => []),
});

const totalsSchema = z.strictObject({ ...head, history: z.array(z.strictObject(day)) });

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
      format: 1,
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
  const result = snapshotSchema.safeParse(parse(text));
  if (!result.success) throw new Error(reasonsOf(result.error));
  const { username, covers_seq: coversSeq, history } = result.data;
  if (username !== name) throw new Error(`it is about user ${JSON.stringify(username)}`);
  const windows = windowsOf(result.data);
  const keys = new Map(Object.entries(result.data.keys).map(([id, stored]) => [id, windowsOf(stored)]));
  const days = history.map(({ day: date, start, end, models }): OpenDay => ({
    day: dayOf(date, models),
    start: Date.parse(start),
    end: Date.parse(end),
  }));
  return { user: new UserQuota(name, periodAt, { windows, keys, days }), coversSeq };
}

/** The last journal record covered by a user's file; 0 if it can't be read. */
export function coversSeqOf(text: string): number {
  return Number(/^covers_seq = (\d{1,16})$/m.exec(text)?.[1] ?? 0);
}

/** The text of users/usage/_totals.toml: the days that the archive does not have. */
export function encodeTotals(totals: UsageTotals, coversSeq: number): string {
  const open = totals.days.filter(({ state }) => state !== "archived");
  const history = open.map((day) => ({ day: day.date, models: modelsOf(day) }));
  return (
    "# Written by the proxy, which overwrites changes. What all users have used together; cost in nano-units (1e-9).\n" +
    stringify({ format: 1, covers_seq: coversSeq, history }) +
    "\n"
  );
}

/** Reads the file of totals: its days, and the last journal record it covers. Throws as decodeSnapshot. */
export function decodeTotals(text: string): { readonly days: readonly UsageDay[]; readonly coversSeq: number } {
  const result = totalsSchema.safeParse(parse(text));
  if (!result.success) throw new Error(reasonsOf(result.error));
  const days = result.data.history.map(({ day: date, models }) => dayOf(date, models));
  return { days, coversSeq: result.data.covers_seq };
}

function modelsOf({ rows }: UsageDay): readonly object[] {
  return rows.map((row) => Object.fromEntries(Object.entries(toKeptRow(row)).filter(([key]) => key !== "day")));
}

function dayOf(date: string, models: readonly Omit<z.infer<typeof keptRowSchema>, "day">[]): UsageDay {
  return new UsageDay(
    date,
    models.map((row) => fromKeptRow({ ...row, day: date })),
  );
}

function periodsOf(windows: readonly Window[]): Readonly<Record<string, object>> {
  const entries = windows.map(({ per, start, end, used: { requests, tokens, costs } }) => {
    // The total has no end, and a start only after a reset.
    const bounds = {
      ...(start === 0 ? {} : { start: new Date(start).toISOString() }),
      ...(end === Infinity ? {} : { end: new Date(end).toISOString() }),
    };
    return [per, { ...bounds, requests, tokens, cost: Object.fromEntries(costs) }] as const;
  });
  return Object.fromEntries(entries);
}

function windowsOf({ day, week, month, total }: z.infer<typeof periodsSchema>): readonly Window[] {
  return [
    windowOf("day", day),
    windowOf("week", week),
    windowOf("month", month),
    windowOf("total", { ...total, start: total.start ?? 0, end: Infinity }),
  ];
}

interface StoredPeriod {
  readonly start: string | number;
  readonly end: string | number;
  readonly requests: number;
  readonly tokens: number;
  readonly cost: Readonly<Record<string, number>>;
}

function windowOf(per: Per, { start, end, requests, tokens, cost }: StoredPeriod): Window {
  const amounts = new Amounts();
  amounts.requests = requests;
  amounts.tokens = tokens;
  for (const [currency, nano] of Object.entries(cost)) amounts.costs.set(currency, nano);
  return { per, start: toMs(start), end: toMs(end), used: amounts };
}

function toMs(time: string | number): number {
  return typeof time === "number" ? time : Date.parse(time);
}

function reasonsOf({ issues }: z.ZodError): string {
  return issues.map(({ path, message }) => `${path.join(".")}: ${message}`).join("; ");
}
