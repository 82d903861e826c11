import { z } from "zod";
import { cuttingMetrics, limitName, metricNames, metrics, type Metric } from "../quota/metrics.ts";
import { periodNames } from "../quota/periods.ts";
import { currencyCode, modelGlob, moment, note, plainName, timezone } from "./value-schemas.ts";

const maxSafe = Number.MAX_SAFE_INTEGER;

const counted = {
  metric: z.enum(metricNames).describe("What is counted."),
  per: z.enum(periodNames).describe("Period; `total` never resets."),
  currency: currencyCode.optional().describe("Only for cost; default quota.currency."),
};

const limitSchema = z
  .strictObject({
    ...counted,
    max: z.number().min(0).max(maxSafe).describe("Maximum; for cost in units of the currency."),
  })
  .superRefine(({ max, ...limit }, ctx) => {
    checkAmount("max", max, limit, ctx);
  });

const grantSchema = z
  .strictObject({
    ...counted,
    amount: z.number().min(0).max(maxSafe).describe("Added to the limit; for cost in units of the currency."),
    until: moment.optional().describe("End, exclusive; default: no end. Without an offset in quota.timezone."),
    reason: note.optional().describe("Reason for the grant."),
  })
  .superRefine(({ amount, ...grant }, ctx) => {
    checkAmount("amount", amount, grant, ctx);
  });

/** `limits` of users/NAME.toml: each replaces the tier's limit of the same metric, period and currency, or adds one. */
export const limitsSchema = z
  .array(limitSchema)
  .max(100)
  .superRefine((limits, ctx) => {
    checkDuplicates(limits, new Set(), "", [], ctx);
  })
  .describe("Limits of this user instead of the tier's.");

/** Grants that an account has room for. */
export const maxGrants = 1000;

/** `grants` of users/NAME.toml: each is added to the user's limit of the same metric, period and currency, if any. */
export const grantsSchema = z
  .array(grantSchema)
  .max(maxGrants)
  .describe("What this user may use in addition, for a time.");

const tierSchema = z
  .strictObject({
    requests: z.int().min(0).optional().describe("Shorthand for a limit of requests per month."),
    limits: z.array(limitSchema).max(100).default([]).describe("Any number of limits; all must allow a request."),
    models: z
      .array(modelGlob)
      .min(1)
      .max(100)
      .optional()
      .describe('Models that its users may use; globs such as "deepseek-*". Absent: all.'),
    weight: z
      .int()
      .min(1)
      .max(100)
      .optional()
      .describe(
        "Share of its users while requests wait for their turn, default 1. An overloaded proxy refuses the lightest first.",
      ),
  })
  .describe("A tier; `{}` means unlimited.");

const bytesPerToken = z.number().min(1).max(16);

/** [quota]: tiers, the start of their periods, and what is reserved and charged if the exact usage is unknown. */
export const quotaSection = z.strictObject({
  timezone: timezone.default("Asia/Shanghai").describe("Periods begin at midnight there."),
  monthly_reset_day: z
    .int()
    .min(1)
    .max(31)
    .default(1)
    .describe("Day on which a month begins; in shorter months the last day."),
  warn_percent: z
    .int()
    .min(1)
    .max(100)
    .default(80)
    .describe("Usage in percent from which responses carry X-Quota-Warning."),
  currency: currencyCode.default("CNY").describe("Currency of cost limits that name none."),
  max_output_tokens: z
    .int()
    .min(1)
    .max(10_000_000)
    .default(8192)
    .describe("Output tokens reserved for a request without max_tokens."),
  reserve_bytes_per_token: bytesPerToken
    .default(2)
    .describe("Bytes per token when reserving for a prompt; lower is safer."),
  estimate_bytes_per_token: bytesPerToken
    .default(4)
    .describe("Bytes per token when charging for a prompt whose usage the provider doesn't report."),
  cut_midstream: z
    .array(z.enum(cuttingMetrics))
    .default(cuttingMetrics)
    .describe("Limits at which a response is cut off mid-stream once the user's budget has run out."),
  tiers: z
    .record(plainName, tierSchema)
    .default({
      basic: { requests: 500, limits: [] },
      pro: { requests: 1000, limits: [] },
      premium: { requests: 1500, limits: [] },
    })
    .describe("What the users of a tier may use."),
});

/**
 * Refuses two limits of a tier that count the same, and cost limits in a currency without any price: nothing would ever
 * count. If there are no prices at all, users with a cost limit are refused every model. The issues' paths begin at
 * `quota`.
 */
export function checkTierLimits(
  { tiers, currency: ofQuota }: z.infer<typeof quotaSection>,
  prices: readonly { readonly currency: string }[],
  ctx: z.core.$RefinementCtx,
): void {
  for (const [name, { requests, limits }] of Object.entries(tiers)) {
    const path = ["quota", "tiers", name, "limits"];
    const seen = new Set(requests === undefined ? [] : [limitKey({ metric: "requests", per: "month" }, "")]);
    checkDuplicates(limits, seen, ofQuota, path, ctx);
    checkPricedCurrencies(limits, ofQuota, prices, path, ctx);
  }
}

/** Refuses those of the limits at a path whose currency no price has. */
export function checkPricedCurrencies(
  limits: readonly Counted[],
  defaultCurrency: string,
  prices: readonly { readonly currency: string }[],
  path: readonly string[],
  ctx: z.core.$RefinementCtx,
): void {
  limits.forEach(({ metric, currency = defaultCurrency }, index) => {
    const priced = metrics[metric].hasCurrency ? currenciesInstead(currency, prices) : null;
    if (priced === null) return;
    const rows = priced.map((one) => `${one} (models.prices.${prices.findIndex((price) => price.currency === one)})`);
    const message = `expected a limit in a currency of models.prices, which are in ${rows.join(", ")}, not in ${currency}`;
    ctx.addIssue({ code: "custom", path: [...path, index], message, input: limits });
  });
}

/**
 * The currencies that prices are in, where this one is none of them. Null where a price is in it, or where there is no
 * price at all: then everybody whose cost is limited is refused every model, and the refusal says so.
 */
export function currenciesInstead(
  wanted: string,
  prices: readonly { readonly currency: string }[],
): readonly string[] | null {
  const priced = [...new Set(prices.map(({ currency }) => currency))];
  return priced.length === 0 || priced.includes(wanted) ? null : priced;
}

/** A limit in the format of config.toml and user files; `max` of cost is in units of the currency. */
export type LimitConfig = Readonly<z.infer<typeof limitSchema>>;
/** A grant in the format of user files; `amount` of cost is in units of the currency. */
export type GrantConfig = Readonly<z.infer<typeof grantSchema>>;

type Counted = Pick<LimitConfig, "metric" | "per" | "currency">;

function limitKey({ metric, per, currency }: Counted, defaultCurrency: string): string {
  return limitName({ metric, per, ...(metrics[metric].hasCurrency ? { currency: currency ?? defaultCurrency } : {}) });
}

function checkDuplicates(
  limits: readonly Counted[],
  seen: Set<string>,
  defaultCurrency: string,
  path: readonly string[],
  ctx: z.core.$RefinementCtx,
): void {
  limits.forEach((limit, index) => {
    const key = limitKey(limit, defaultCurrency);
    if (seen.has(key)) {
      const message = `expected one limit of ${limit.metric} per ${limit.per}`;
      ctx.addIssue({ code: "custom", path: [...path, index], message, input: limits });
    }
    seen.add(key);
  });
}

function checkAmount(
  key: "max" | "amount",
  amount: number,
  { metric, currency }: Counted,
  ctx: z.core.$RefinementCtx,
): void {
  const refuse = (at: string, message: string): void => {
    ctx.addIssue({ code: "custom", path: [at], message, input: amount });
  };
  // A value out of bounds has been reported already.
  const isInBounds = amount >= 0 && amount <= maxSafe;
  const { hasCurrency, most } = metrics[metric];
  if (!hasCurrency && currency !== undefined)
    refuse("currency", 'expected no currency, which only metric = "cost" has');
  if (!isInBounds) return;
  if (amount > most) refuse(key, `expected at most ${most}`);
  else if (!isExact(metric, amount))
    refuse(key, hasCurrency ? "expected at most 9 decimal places" : `expected a whole number of ${metric}`);
}

/** Whether the ledger can count an amount as it is written. */
function isExact(metric: Metric, amount: number): boolean {
  try {
    metrics[metric].parse(amount);
    return true;
  } catch {
    return false;
  }
}
