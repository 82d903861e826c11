import { parse, stringify } from "smol-toml";
import { z } from "zod";
import { Amounts } from "./amounts.ts";
import type { Per } from "./ledger.ts";
import type { PeriodAt } from "./period.ts";
import { UserQuota, type Window } from "./user-quota.ts";

const amount = z.int().min(0);
const used = { requests: amount, tokens: amount, cost: z.record(z.string().regex(/^[A-Z]{3}$/), amount) };
const period = z
  .strictObject({ start: z.iso.datetime(), end: z.iso.datetime(), ...used })
  .refine(({ start, end }) => Date.parse(start) < Date.parse(end), "expected an end after its start");

const snapshotSchema = z.strictObject({
  format: z.literal(1),
  username: z.string(),
  covers_seq: amount,
  day: period,
  week: period,
  month: period,
  total: z.strictObject(used),
});

/** A user's quota as it was when record `coversSeq` was the last in the journal. */
export interface Snapshot {
  readonly user: UserQuota;
  readonly coversSeq: number;
}

/** The text of users/NAME.quota.toml. */
export function encodeSnapshot({ user, coversSeq }: Snapshot): string {
  const windows = user.windows.map(({ per, start, end, used: { requests, tokens, costs } }) => {
    const bounds = per === "total" ? {} : { start: new Date(start).toISOString(), end: new Date(end).toISOString() };
    return [per, { ...bounds, requests, tokens, cost: Object.fromEntries(costs) }] as const;
  });
  return (
    "# Written by the proxy, which overwrites changes. What was used in the running periods; cost in nano-units (1e-9).\n" +
    stringify({ format: 1, username: user.name, covers_seq: coversSeq, ...Object.fromEntries(windows) }) +
    "\n"
  );
}

/** Reads the file of user `name`. Throws an error that says which key is wrong, or on which line the syntax is. */
export function decodeSnapshot(text: string, name: string, periodAt: PeriodAt): Snapshot {
  const result = snapshotSchema.safeParse(parse(text));
  if (!result.success) throw new Error(z.prettifyError(result.error));
  const { username, covers_seq: coversSeq, total, ...periods } = result.data;
  if (username !== name) throw new Error(`it is about user ${JSON.stringify(username)}`);
  const windows = [
    windowOf("day", periods.day),
    windowOf("week", periods.week),
    windowOf("month", periods.month),
    windowOf("total", { ...total, start: 0, end: Infinity }),
  ];
  return { user: new UserQuota(name, periodAt, Date.parse(periods.day.start), windows), coversSeq };
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
