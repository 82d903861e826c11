import { z } from "zod";
import { csvLine } from "../../lib/csv.ts";
import { formatNano } from "../../lib/money.ts";
import { noSums } from "../../quota/amounts.ts";
import type { Adjusted } from "../../quota/ledger.ts";
import { countMetrics, forEachMetric } from "../../quota/metrics.ts";
import type { ExportedRow } from "../../quota/usage/usage-export.ts";
import { usageOutcomes } from "../../quota/outcomes.ts";
import { isTime, type UsageLine, type UsageSubject } from "../../quota/usage/usage-queries.ts";

const span = {
  from: z.iso.date().optional().describe("First day, in the quota's time zone. Default: 29 days before `to`."),
  to: z.iso.date().optional().describe("Last day. Default: today."),
};

export const myUsageQuery = z.strictObject({
  ...span,
  by: z.enum(["day", "month", "model", "key", "both"]).default("day").describe("How the rows are grouped."),
});

export const usageQuery = z.strictObject({
  ...span,
  user: z
    .string()
    .regex(/^[a-z0-9][a-z0-9_-]{0,31}$/, "expected a user name")
    .optional()
    .describe("Only this user. Absent: all users together, or one by one if `by` says so."),
  by: z
    .enum(["day", "month", "hour", "model", "key", "both", "user", "all", "group", "provider"])
    .default("day")
    .describe(
      "How the rows are grouped; `key` is user and API key, `all` is user, day and model. `hour`, `group` and `provider` are counted from the journal, which is kept for storage.journal_archive_days.",
    ),
  per: z
    .enum(["hour", "day", "month"])
    .optional()
    .describe("Groups by the hour, the day or the month of the charge too, or instead of the day that `by` has."),
  top: z.coerce
    .number()
    .int()
    .min(1)
    .max(1000)
    .optional()
    .describe(
      "Only so many users, groups, models and so on, those with the most tokens, have rows of their own; all others are summed in one row, at each time if it is by time. Absent: all have.",
    ),
  format: z.enum(["json", "csv"]).default("json"),
});

const amount = z.int();
const costs = z.array(z.object({ cost: z.string().describe("A decimal, exact."), currency: z.string() }));

const usageRow = z.object({
  others: amount
    .optional()
    .describe(
      "With `top`: this row is the sum of so many others, and has nothing of what it is grouped by but the time.",
    ),
  user: z.string().optional(),
  group: z.string().optional().describe('"": for no group.'),
  provider: z.string().optional().describe('"": unknown, or changed by hand.'),
  hour: z.string().optional().describe("Its beginning, in the quota's time zone: 2026-11-26T09:00:00+08:00."),
  day: z.iso.date().optional(),
  month: z.string().optional().describe("2026-11"),
  model: z.string().optional().describe('"adjust" for manual changes, which are in `adjusted`.'),
  api_key: z.string().optional().describe('Id of the API key, with by=key; "" for access tokens.'),
  requests: amount.describe("As charged: times the model's weight."),
  tokens: amount.describe("As charged."),
  input_tokens: amount,
  cached_tokens: amount.describe("Part of the input."),
  output_tokens: amount,
  reasoning_tokens: amount.describe("Part of the output."),
  costs,
  adjusted: z
    .object({ ...forEachMetric(countMetrics, () => amount), costs })
    .describe("Manual adjustments by operators; negative if taken away. Not included in the other fields."),
  outcomes: z.partialRecord(z.enum(usageOutcomes), amount).describe("How many chats had each outcome."),
  estimated_requests: amount.describe("Chats whose usage is estimated, including unsettled ones."),
  unsettled_requests: amount.describe("Chats that are reserved and running, or were lost in a crash."),
});

export const usageResponse = z.object({
  from: z.iso.date(),
  to: z.iso.date(),
  timezone: z.string(),
  missing_before: z.iso
    .datetime()
    .optional()
    .describe(
      "Over Redis: of the time before, charges of other processes may be missing at this one. Absent: all are there.",
    ),
  rows: z.array(usageRow),
});

export const requestUsageResponse = z.object({
  request_id: z.string(),
  time: z.string().describe("When it was charged first: it counts in the periods of that time."),
  settled_at: z.string(),
  group: z.string().describe('"": for no group.'),
  api_key: z.string().describe('Id of the API key; "" for access tokens and the panel.'),
  model: z.string(),
  provider: z.string(),
  outcome: z.enum(usageOutcomes).describe("How it ended, which decides what is charged."),
  requests: amount.describe("As charged: times the model's weight."),
  tokens: amount.describe("As charged."),
  input_tokens: amount,
  cached_tokens: amount.describe("Part of the input."),
  output_tokens: amount,
  reasoning_tokens: amount.describe("Part of the output."),
  cost: z.string().describe("A decimal, exact: what was charged."),
  currency: z.string().describe('"" if the model has no price.'),
  estimated: z.boolean().describe("Whether tokens were estimated, for want of the provider's report."),
});

/** A settled request. */
export function toRequestUsage(row: ExportedRow): z.input<typeof requestUsageResponse> | undefined {
  const { at, settledAt, usage, outcome } = row;
  if (settledAt === null || outcome === "unsettled" || outcome === "") return undefined;
  return {
    request_id: row.requestId,
    time: new Date(at).toISOString(),
    settled_at: new Date(settledAt).toISOString(),
    group: row.group,
    api_key: row.apiKey,
    model: row.model,
    provider: row.provider,
    outcome,
    requests: row.requests,
    tokens: row.tokens,
    input_tokens: usage.input,
    cached_tokens: usage.cached,
    output_tokens: usage.output,
    reasoning_tokens: usage.reasoning,
    cost: formatNano(row.cost),
    currency: row.currency,
    estimated: row.estimated,
  };
}

const notAdjusted: Adjusted = noSums();

function toCosts(cost: Readonly<Record<string, number>>): z.input<typeof costs> {
  return Object.entries(cost).map(([currency, nano]) => ({ cost: formatNano(nano), currency }));
}

/** A row as JSON, with what it is grouped by. */
export function toUsageRow(line: UsageLine, by: readonly UsageSubject[]): z.input<typeof usageRow> {
  const { user, row, names, others } = line;
  const { cost, ...adjusted } = row.adjusted ?? notAdjusted;
  const named = others === undefined ? by : by.filter(isTime);
  return {
    ...(user === undefined ? {} : { user }),
    ...(others === undefined ? {} : { others }),
    ...Object.fromEntries(
      named.filter((subject) => subject !== "user").map((one) => [columnOf(one), nameIn(row, one, names)]),
    ),
    requests: row.requests,
    tokens: row.tokens,
    input_tokens: row.input,
    cached_tokens: row.cached,
    output_tokens: row.output,
    reasoning_tokens: row.reasoning,
    costs: toCosts(row.cost),
    adjusted: { ...adjusted, costs: toCosts(cost) },
    outcomes: row.outcomes,
    estimated_requests: row.estimated,
    unsettled_requests: row.unsettled,
  };
}

function columnOf(subject: UsageSubject): string {
  return subject === "key" ? "api_key" : subject;
}

function nameIn(row: UsageLine["row"], subject: UsageSubject, names: UsageLine["names"]): string {
  if (names !== undefined) return names[subject] ?? "";
  return subject === "day" || subject === "model" || subject === "key" ? row[subject] : "";
}

/** Those that have no column of their own in every CSV. */
function extrasOf(by: readonly UsageSubject[]): readonly UsageSubject[] {
  return by.filter((subject) => subject !== "user" && subject !== "day" && subject !== "model");
}

/** The CSV header. What the rows are grouped by beside user, day and model has a column at the end. */
export function usageHead(by: readonly UsageSubject[]): string {
  return csvLine([
    "user",
    "day",
    "model",
    "requests",
    "tokens",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "estimated_requests",
    "unsettled_requests",
    ...usageOutcomes,
    "cost",
    "currency",
    ...countMetrics.map((metric) => `adjusted_${metric}`),
    "adjusted_cost",
    ...extrasOf(by).map(columnOf),
  ]);
}

/**
 * A row as CSV. A row with several currencies becomes several lines, of which only the first has the counts, so that
 * each column can be summed.
 */
export function toUsageCsv({ user = "", row, names: given }: UsageLine, by: readonly UsageSubject[]): string {
  const adjusted = row.adjusted ?? notAdjusted;
  const names = [user, nameIn(row, "day", given), nameIn(row, "model", given)];
  const counts = [
    row.requests,
    row.tokens,
    row.input,
    row.cached,
    row.output,
    row.reasoning,
    row.estimated,
    row.unsettled,
    ...usageOutcomes.map((outcome) => row.outcomes[outcome] ?? 0),
  ];
  const changes = countMetrics.map((metric) => adjusted[metric]);
  const extras = extrasOf(by).map((subject) => nameIn(row, subject, given));
  const currencies = [...new Set([...Object.keys(row.cost), ...Object.keys(adjusted.cost)])];
  const lineOf = (currency: string, index: number): string => {
    const once = (amounts: readonly number[]): readonly number[] => (index === 0 ? amounts : amounts.map(() => 0));
    const costOf = (costs: Readonly<Record<string, number>>): string => formatNano(costs[currency] ?? 0);
    const amounts = [costOf(row.cost), currency, ...once(changes), costOf(adjusted.cost)];
    return csvLine([...names, ...once(counts), ...amounts, ...extras]);
  };
  return (currencies.length === 0 ? [""] : currencies).map(lineOf).join("");
}
