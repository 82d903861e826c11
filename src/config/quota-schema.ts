import { z } from "zod";

const maxSafe = Number.MAX_SAFE_INTEGER;
const currency = z.string().regex(/^[A-Z]{3}$/, "a currency code such as CNY");

const limitSchema = z
  .strictObject({
    metric: z.enum(["requests", "tokens", "cost"]).describe("What is counted."),
    per: z.enum(["day", "week", "month", "total"]).describe("Over which time; `total` never resets."),
    max: z.number().min(0).max(maxSafe).describe("The most that may be used; for cost in units of the currency."),
    currency: currency.optional().describe("Only for cost; default quota.currency."),
  })
  .superRefine((limit, ctx) => {
    if (limit.metric !== "cost" && !Number.isInteger(limit.max)) {
      ctx.addIssue({ code: "custom", path: ["max"], message: `expected a whole number of ${limit.metric}` });
    }
    if (limit.metric === "cost" && limit.max > maxSafe / 1e9) {
      ctx.addIssue({ code: "custom", path: ["max"], message: `expected at most ${Math.floor(maxSafe / 1e9)}` });
    }
    if (limit.metric !== "cost" && limit.currency !== undefined) {
      ctx.addIssue({ code: "custom", path: ["currency"], message: 'only a limit with metric = "cost" has a currency' });
    }
  });

const tierSchema = z
  .strictObject({
    requests: z.int().min(0).optional().describe("Short for one limit of requests per month."),
    limits: z.array(limitSchema).default([]).describe("Any number of limits; all must have room."),
  })
  .describe("A tier; `{}` means unlimited.");

/** [quota]: tiers, and when their periods begin. */
export const quotaSection = z.strictObject({
  timezone: z
    .string()
    .default("Asia/Shanghai")
    .refine(isTimezone, "an IANA time zone such as Asia/Shanghai")
    .describe("Periods begin at midnight there."),
  monthly_reset_day: z
    .int()
    .min(1)
    .max(31)
    .default(1)
    .describe("Day on which a month begins; 29 to 31 fall back to the month's last day."),
  warn_percent: z.int().min(1).max(100).default(80).describe("Use from which answers carry X-Quota-Warning."),
  currency: currency.default("CNY").describe("Currency of cost limits that name none."),
  tiers: z
    .record(z.string().regex(/^[a-z0-9][a-z0-9_-]{0,31}$/, "lower-case letters, digits, - and _"), tierSchema)
    .default({
      basic: { requests: 500, limits: [] },
      pro: { requests: 1000, limits: [] },
      premium: { requests: 1500, limits: [] },
    })
    .describe("What the users of a tier may use."),
});

/** A tier as config.toml writes it. */
export type TierConfig = Readonly<z.infer<typeof tierSchema>>;
export type QuotaConfig = Readonly<z.infer<typeof quotaSection>>;

function isTimezone(name: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}
