import { z } from "zod";
import { currencyCode, isoInstant } from "../config/value-schemas.ts";
import { forEachMetric, type Metric, metricNames, metrics } from "../quota/metrics.ts";
import { periodNames } from "../quota/periods.ts";

/** The requests of operators, by HTTP or on the command line; both validate with these schemas. */

/** The reason for a change. */
const reason = z
  .string()
  .trim()
  .min(1)
  .max(500)
  .regex(/^\P{Cs}*$/u, "expected whole characters")
  .describe("Why; kept in the audit log.");

const per = z.enum(periodNames).describe("The limit's period.");
const decimal = z.union([z.number(), z.string().max(40)]);

/** A grant in addition to a limit. */
export const grantRequest = z
  .strictObject({
    metric: z.enum(metricNames).describe("What the limit counts."),
    per,
    amount: decimal.describe("Added to the limit. Cost in units of the currency, with at most 9 decimal places."),
    currency: currencyCode.optional().describe("Only for cost. Default: quota.currency."),
    until: isoInstant
      .optional()
      .describe("Exclusive end. Default: the end of the running period; forever if it has none."),
    reason,
  })
  .transform((request, ctx) => {
    const refuse = (path: string, message: string): never => {
      ctx.addIssue({ code: "custom", path: [path], message, input: request });
      return z.NEVER;
    };
    const { metric } = request;
    const { hasCurrency, most, expected } = metrics[metric];
    if (!hasCurrency && request.currency !== undefined) refuse("currency", "only cost has a currency");
    const amount = Number(request.amount);
    if (!isSame(metric, request.amount, amount) || !(amount > 0) || amount > most)
      refuse("amount", `expected ${expected} above 0`);
    const { until, ...rest } = request;
    return { ...rest, amount, ...(until === undefined ? {} : { until: new Date(until) }) };
  });

/** An amount to add, below 0 to take away; the output is in the ledger's unit. */
function addend(metric: Metric) {
  const { hasCurrency, expected, parseSigned } = metrics[metric];
  if (!hasCurrency) return z.int().optional().describe("Added to what counts as used; negative to give back.");
  return decimal
    .transform((amount, ctx) => {
      try {
        return parseSigned(amount);
      } catch {
        ctx.addIssue({ code: "custom", message: `expected ${expected}`, input: amount });
        return z.NEVER;
      }
    })
    .optional()
    .describe("The same in units of the currency, with at most 9 decimal places; exact as a string.");
}

/** A change of what counts as used. The output has the cost in nano-units. */
export const adjustRequest = z
  .strictObject({
    ...forEachMetric(metricNames, addend),
    currency: currencyCode.optional().describe("Currency of the cost. Default: quota.currency."),
    reason,
  })
  .refine((amounts) => metricNames.some((metric) => (amounts[metric] ?? 0) !== 0), {
    path: [metricNames[0]],
    message: `expected ${listed(metricNames)} other than 0`,
  });

/** Restarts a running period. */
export const resetRequest = z.strictObject({ per, reason });

export type GrantRequest = z.output<typeof grantRequest>;
export type AdjustRequest = z.output<typeof adjustRequest>;
export type ResetRequest = z.output<typeof resetRequest>;

/** `requests, tokens or cost`. */
function listed(words: readonly string[]): string {
  return `${words.slice(0, -1).join(", ")} or ${words.at(-1) ?? ""}`;
}

/** Whether a number, as stored in a user file, is exactly the requested amount. */
function isSame(metric: Metric, requested: number | string, amount: number): boolean {
  const { parse } = metrics[metric];
  try {
    return parse(requested) === parse(amount);
  } catch {
    return false;
  }
}
