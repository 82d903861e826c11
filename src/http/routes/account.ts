import type { FastifyInstance, FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { Allowances } from "../../quota/allowances.ts";
import { formatNano } from "../../lib/money.ts";
import type { BucketState, Ledger } from "../../quota/ledger.ts";
import type { Groups } from "../../identity/groups.ts";
import { groupOfRequest } from "../group-of-request.ts";
import { accountOfRequest } from "../plugins/authenticate.ts";
import { limitResponse, toLimitResponse } from "../schemas/quota.ts";

const quotaResponse = z.object({ username: z.string(), tier: z.string(), limits: z.array(limitResponse) });

/** DeepSeek's format. What it calls an account's balance is what the user may still spend here. */
const balanceResponse = z.object({
  is_available: z.boolean().describe("Whether every limit has room."),
  balance_infos: z
    .array(
      z.object({
        currency: z.string(),
        total_balance: z.string().describe("A decimal: what remains of the tightest limit in this currency."),
        granted_balance: z.string(),
        topped_up_balance: z.string(),
      }),
    )
    .describe("One for each currency in which the user's cost is limited."),
});

/** GET /auth/quota: what the caller may still use. GET /user/balance: the same for DeepSeek's clients. */
export function registerAccountRoutes(
  app: FastifyInstance,
  options: {
    readonly ledger: Ledger;
    readonly groups: Pick<Groups, "get" | "ofUser">;
    readonly limitsOf: Allowances["limitsOf"];
  },
): void {
  const { ledger, groups, limitsOf } = options;
  const routes = app.withTypeProvider<ZodTypeProvider>();

  /** Those of the user, of the API key and of the group, as a chat with the same headers would find them. */
  async function bucketsOf(request: FastifyRequest): Promise<readonly BucketState[]> {
    const account = accountOfRequest(request);
    const group = await groupOfRequest(request, groups);
    return ledger.buckets(account.username, limitsOf(account, request.apiKey, group));
  }

  routes.get(
    "/auth/quota",
    {
      config: { access: "api_key" },
      schema: { summary: "My quota", tags: ["account"], response: { 200: quotaResponse } },
    },
    async (request) => {
      const { username, quota_tier: tier } = accountOfRequest(request);
      const buckets = await bucketsOf(request);
      return { username, tier, limits: buckets.map(toLimitResponse) };
    },
  );

  routes.get(
    "/user/balance",
    {
      config: { access: "api_key" },
      schema: {
        summary: "My quota, in DeepSeek's balance format",
        tags: ["account"],
        response: { 200: balanceResponse },
      },
    },
    async (request) => {
      const buckets = await bucketsOf(request);
      return { is_available: buckets.every(({ remaining }) => remaining > 0), balance_infos: toBalances(buckets) };
    },
  );
}

function toBalances(buckets: readonly BucketState[]): z.input<typeof balanceResponse>["balance_infos"] {
  const least = new Map<string, number>();
  for (const { limit, remaining } of buckets) {
    if (limit.metric !== "cost" || limit.currency === undefined) continue;
    least.set(limit.currency, Math.max(0, Math.min(remaining, least.get(limit.currency) ?? remaining)));
  }
  return [...least].map(([currency, nano]) => {
    const balance = formatNano(nano);
    return { currency, total_balance: balance, granted_balance: "0", topped_up_balance: balance };
  });
}
