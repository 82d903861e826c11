import { z } from "zod";
import { currencyCode, isoInstant } from "../config/value-schemas.ts";
import { parseNano, parseSignedNano } from "../lib/money.ts";

/** The requests of operators, by HTTP or on the command line; both validate with these schemas. */

/** The reason for a change. */
const reason = z
  .string()
  .trim()
  .min(1)
  .max(500)
  .regex(/^\P{Cs}*$/u, "expected whole characters")
  .describe("Why; kept in the audit log.");

const per = z.enum(["day", "week", "month", "total"]).describe("The limit's period.");
const decimal = z.union([z.number(), z.string().max(40)]);
const count = z.int().optional();

/** A grant in addition to a limit. */
export const grantRequest = z
  .strictObject({
    metric: z.enum(["requests", "tokens", "cost"]).describe("What the limit counts."),
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
    if (request.metric !== "cost" && request.currency !== undefined) refuse("currency", "only cost has a currency");
    const amount = Number(request.amount);
    const isExact = request.metric === "cost" ? isSameNano(request.amount, amount) : Number.isSafeInteger(amount);
    if (!isExact || !(amount > 0)) refuse("amount", `expected an amount of ${request.metric} above 0`);
    const { until, ...rest } = request;
    return { ...rest, amount, ...(until === undefined ? {} : { until: new Date(until) }) };
  });

const money = decimal.transform((amount, ctx) => {
  try {
    return parseSignedNano(amount);
  } catch {
    ctx.addIssue({ code: "custom", message: "expected an amount with at most 9 decimal places", input: amount });
    return z.NEVER;
  }
});

/** A change of what counts as used. The output has the cost in nano-units. */
export const adjustRequest = z
  .strictObject({
    requests: count.describe("Added to what counts as used; negative to give back."),
    tokens: count.describe("The same in tokens."),
    cost: money
      .optional()
      .describe("The same in units of the currency, with at most 9 decimal places; exact as a string."),
    currency: currencyCode.optional().describe("Currency of the cost. Default: quota.currency."),
    reason,
  })
  .refine(({ requests = 0, tokens = 0, cost = 0 }) => requests !== 0 || tokens !== 0 || cost !== 0, {
    path: ["requests"],
    message: "expected requests, tokens or cost other than 0",
  });

/** Restarts a running period. */
export const resetRequest = z.strictObject({ per, reason });

export type GrantRequest = z.output<typeof grantRequest>;
export type AdjustRequest = z.output<typeof adjustRequest>;
export type ResetRequest = z.output<typeof resetRequest>;

/** Whether a number, as stored in a user file, is exactly the requested amount of money. */
function isSameNano(requested: number | string, amount: number): boolean {
  try {
    return parseNano(requested) === parseNano(amount);
  } catch {
    return false;
  }
}
