import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { Account } from "../../accounts/account-schema.ts";
import type { Ledger, Limit } from "../../quota/ledger.ts";
import { accountOfRequest } from "../plugins/access.ts";

const quotaAnswer = z.object({
  username: z.string(),
  tier: z.string(),
  limits: z.array(
    z.object({
      metric: z.enum(["requests", "tokens", "cost"]),
      per: z.enum(["day", "week", "month", "total"]),
      currency: z.string().optional().describe("Only for cost, which is in units of it."),
      max: z.number(),
      used: z.number(),
      reserved: z.number().describe("Held by requests that are running."),
      remaining: z.number(),
      reset_at: z.iso.datetime().nullable().describe("null where it never resets."),
    }),
  ),
});

/** GET /auth/quota: what the caller may still use. */
export function registerAccountRoutes(
  app: FastifyInstance,
  { ledger, limitsOf }: { readonly ledger: Ledger; readonly limitsOf: (account: Account) => readonly Limit[] },
): void {
  app.withTypeProvider<ZodTypeProvider>().get(
    "/auth/quota",
    {
      config: { access: "api_key" },
      schema: { summary: "My quota", tags: ["account"], response: { 200: quotaAnswer } },
    },
    async (request) => {
      const account = accountOfRequest(request);
      const { username, quota_tier: tier } = account;
      const buckets = await ledger.buckets(username, limitsOf(account));
      const limits = buckets.map(({ limit, used, reserved, remaining, resetAt }) => {
        const { metric, per, max, currency } = limit;
        const scale = metric === "cost" ? 1e9 : 1;
        return {
          metric,
          per,
          ...(currency === undefined ? {} : { currency }),
          max: max / scale,
          used: used / scale,
          reserved: reserved / scale,
          remaining: remaining / scale,
          reset_at: resetAt === null ? null : new Date(resetAt).toISOString(),
        };
      });
      return { username, tier, limits };
    },
  );
}
