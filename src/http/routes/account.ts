import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { Allowances } from "../../quota/allowances.ts";
import type { Ledger } from "../../quota/ledger.ts";
import { accountOfRequest } from "../plugins/access.ts";
import { limitAnswer, toLimitAnswer } from "../schemas/quota.ts";

const quotaAnswer = z.object({ username: z.string(), tier: z.string(), limits: z.array(limitAnswer) });

/** GET /auth/quota: what the caller may still use. */
export function registerAccountRoutes(
  app: FastifyInstance,
  { ledger, limitsOf }: { readonly ledger: Ledger; readonly limitsOf: Allowances["limitsOf"] },
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
      const buckets = await ledger.buckets(username, limitsOf(account, request.apiKey));
      return { username, tier, limits: buckets.map(toLimitAnswer) };
    },
  );
}
