import { z } from "zod";
import type { LedgerRecord } from "../memory/charge-record.ts";
import { addCharge, addSaturated, addSums, isNothing, noSums, type Sums } from "../amounts.ts";
import type { TokenUsage, UsageRow } from "../ledger.ts";
import { countMetrics, forEachMetric } from "../metrics.ts";
import { type Outcome, type UsageOutcome, usageOutcomes } from "../outcomes.ts";

/** A row that is still counted in. */
export type UsageTally = { -readonly [Key in keyof UsageRow]: UsageRow[Key] } & {
  readonly cost: Record<string, number>;
  adjusted: Sums | null;
  readonly outcomes: Partial<Record<UsageOutcome, number>>;
};

/** Those that are not outcomes of chats. */
const manualOutcomes: ReadonlySet<string> = new Set<UsageOutcome>(["adjust", "reset"]);

const counter = z.int().default(0);
const amounts = {
  ...forEachMetric(countMetrics, () => counter),
  cost: z.record(z.string().regex(/^[A-Z]{3}$/), z.int()).default(() => ({})),
};

/** A row as stored in archives and snapshots: 0 and empty values are omitted. */
export const keptRowSchema = z.strictObject({
  day: z.iso.date(),
  model: z.string(),
  key: z.string().default(""),
  ...amounts,
  input: counter,
  cached: counter,
  output: counter,
  reasoning: counter,
  adjusted: z.strictObject(amounts).optional(),
  outcomes: z.partialRecord(z.enum(usageOutcomes), z.int()).default(() => ({})),
  estimated: counter,
  unsettled: counter,
});

/** In the format of keptRowSchema; `day` comes first. */
export function toKeptRow({ day, model, ...rest }: UsageRow): Readonly<Record<string, unknown>> {
  const kept = Object.entries(rest).filter(([, value]) =>
    typeof value === "object" ? value !== null && Object.keys(value).length > 0 : value !== 0 && value !== "",
  );
  return { day, model, ...Object.fromEntries(kept) };
}

/** A row from storage; before `adjusted` existed, a row of manual changes had them in the fields of chats. */
export function fromKeptRow({ adjusted: kept, ...row }: z.infer<typeof keptRowSchema>): UsageRow {
  const adjusted = kept ?? null;
  const { outcomes, unsettled } = row;
  const hasChats = unsettled > 0 || Object.keys(outcomes).some((outcome) => !manualOutcomes.has(outcome));
  if (adjusted !== null || hasChats || outcomes.adjust === undefined) return { ...row, adjusted };
  const sums = noSums();
  addSums(sums, row);
  return { ...row, ...noSums(), adjusted: sums };
}

/** A row without counts. */
export function emptyRow(day: string, model: string, key = ""): UsageTally {
  const { cost, ...counts } = noSums();
  const tokens = { input: 0, cached: 0, output: 0, reasoning: 0 };
  return { day, model, key, ...counts, ...tokens, cost, adjusted: null, outcomes: {}, estimated: 0, unsettled: 0 };
}

/** A copy that later counting doesn't change. */
export function copyRow(row: UsageRow): UsageTally {
  const adjusted = row.adjusted === null ? null : { ...row.adjusted, cost: { ...row.adjusted.cost } };
  return { ...row, cost: { ...row.cost }, adjusted, outcomes: { ...row.outcomes } };
}

/** Counts a record of the journal. */
export function countInRow(row: UsageTally, record: LedgerRecord): void {
  switch (record.kind) {
    case "charge":
      // Until it is settled, only the estimated prompt is known.
      addCharge(row, record.charge, 1);
      row.input = addSaturated(row.input, record.charge.tokens);
      row.estimated++;
      row.unsettled++;
      break;
    case "settle":
      // The first is taken away first: the sum of both might be too large.
      addCharge(row, record.first, -1);
      addCharge(row, record.final, 1);
      row.input = addSaturated(row.input, -record.first.tokens);
      row.estimated--;
      row.unsettled--;
      countOutcome(row, record.outcome);
      // Rolled back: the usage reported by the provider is not billed.
      if (isNothing(record.final)) break;
      addTokens(row, record.usage);
      if (record.estimated) row.estimated++;
      break;
    case "adjust":
      addCharge(adjustedOf(row), record.added, 1);
      addCharge(adjustedOf(row), record.taken, -1);
      countOutcome(row, "adjust");
      break;
    case "reset":
      countOutcome(row, "reset");
  }
}

/** Adds one row to another. */
export function addRow(to: UsageTally, row: UsageRow): void {
  addSums(to, row);
  addTokens(to, row);
  if (row.adjusted !== null) addSums(adjustedOf(to), row.adjusted);
  for (const [outcome, count] of Object.entries(row.outcomes)) countOutcome(to, outcome as UsageOutcome, count);
  to.estimated += row.estimated;
  to.unsettled += row.unsettled;
}

function adjustedOf(row: UsageTally): Sums {
  return (row.adjusted ??= noSums());
}

function addTokens(row: UsageTally, { input, cached, output, reasoning }: TokenUsage): void {
  row.input = addSaturated(row.input, input);
  row.cached = addSaturated(row.cached, cached);
  row.output = addSaturated(row.output, output);
  row.reasoning = addSaturated(row.reasoning, reasoning);
}

function countOutcome(row: UsageTally, outcome: Outcome | UsageOutcome, count = 1): void {
  row.outcomes[outcome] = (row.outcomes[outcome] ?? 0) + count;
}
