import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { QuotaAdmin } from "../../admin/quota-admin.ts";
import { adjustRequest, grantRequest, resetRequest } from "../../admin/quota-requests.ts";
import type { QuotaGrants } from "../../admin/quota-grants.ts";
import { errorSchema } from "../schemas/errors.ts";
import { limitResponse, toLimitResponse } from "../schemas/quota.ts";
import { actorOfRequest, isoTimeOrNull, userParams } from "./admin-request.ts";

const quotaResponse = z.object({
  username: z.string(),
  tier: z.string(),
  limits: z.array(limitResponse).describe("Grants included."),
  grants: z
    .array(
      z.object({
        metric: z.string(),
        per: z.string(),
        currency: z.string().optional(),
        amount: z.number(),
        until: z.iso.datetime().nullable().describe("null: for ever."),
        reason: z.string().optional(),
      }),
    )
    .describe("The grants in force."),
  keys: z
    .array(z.object({ id: z.string(), name: z.string(), limits: z.array(limitResponse) }))
    .describe("API keys that have limits of their own."),
});

export interface QuotaRouteOptions {
  readonly quota: QuotaAdmin;
  readonly grants: QuotaGrants;
}

/** /admin/users/:name/quota: shows and changes what a user may use. Changes respond with the resulting quota. */
export function registerQuotaRoutes(app: FastifyInstance, { quota, grants }: QuotaRouteOptions): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const path = "/admin/users/:name/quota";
  const config = { access: "admin" } as const;
  const schema = {
    tags: ["admin"],
    params: userParams,
    response: { 200: quotaResponse, 400: errorSchema, 404: errorSchema, 503: errorSchema },
  };

  async function quotaOf(name: string): Promise<z.input<typeof quotaResponse>> {
    const { account, buckets, keys } = await quota.of(name);
    return {
      username: name,
      tier: account.quota_tier,
      limits: buckets.map(toLimitResponse),
      grants: grants.inForce(account).map((grant) => ({ ...grant, until: isoTimeOrNull(grant.until) })),
      keys: keys.map((key) => ({ id: key.id, name: key.name, limits: key.buckets.map(toLimitResponse) })),
    };
  }

  routes.get(path, { config, schema: { ...schema, summary: "A user's quota" } }, ({ params }) => quotaOf(params.name));

  routes.post(
    `${path}/grant`,
    { config, schema: { ...schema, summary: "Let a user use more for a time", body: grantRequest } },
    async (request) => {
      const { name } = request.params;
      await grants.add(actorOfRequest(request), name, request.body);
      return quotaOf(name);
    },
  );

  routes.post(
    `${path}/adjust`,
    { config, schema: { ...schema, summary: "Change what counts as used", body: adjustRequest } },
    async (request) => {
      const { name } = request.params;
      await quota.adjust(actorOfRequest(request), name, request.body);
      return quotaOf(name);
    },
  );

  routes.post(
    `${path}/reset`,
    { config, schema: { ...schema, summary: "Restart a running period", body: resetRequest } },
    async (request) => {
      const { name } = request.params;
      await quota.reset(actorOfRequest(request), name, request.body);
      return quotaOf(name);
    },
  );
}
