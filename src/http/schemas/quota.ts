import { z } from "zod";
import type { BucketState } from "../../quota/ledger.ts";
import { metricNames, metrics } from "../../quota/metrics.ts";
import { periodNames } from "../../quota/periods.ts";

/** A limit and its user's current usage. */
export const limitResponse = z.object({
  metric: z.enum(metricNames),
  per: z.enum(periodNames),
  currency: z.string().optional().describe("Only for cost, which is in units of this currency."),
  api_key: z
    .string()
    .optional()
    .describe("The id of the API key if it is the key's own limit; otherwise it is the user's."),
  group: z.string().optional().describe("The group's name if its members share the limit."),
  max: z.number(),
  used: z.number(),
  reserved: z.number().describe("Reserved by running requests."),
  remaining: z.number(),
  reset_at: z.iso.datetime().nullable().describe("null if it never resets."),
});

/** Cost is in units of the currency. */
export function toLimitResponse({
  limit,
  used,
  reserved,
  remaining,
  resetAt,
}: BucketState): z.input<typeof limitResponse> {
  const { metric, per, max, currency, apiKey, group } = limit;
  const { toNumber } = metrics[metric];
  return {
    metric,
    per,
    ...(currency === undefined ? {} : { currency }),
    ...(apiKey === undefined ? {} : { api_key: apiKey }),
    ...(group === undefined ? {} : { group }),
    max: toNumber(max),
    used: toNumber(used),
    reserved: toNumber(reserved),
    remaining: toNumber(remaining),
    reset_at: resetAt === null ? null : new Date(resetAt).toISOString(),
  };
}
