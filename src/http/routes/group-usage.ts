import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { AppError } from "../../errors.ts";
import { isMember, type Group, type Groups } from "../../identity/groups.ts";
import { groupAccount } from "../../quota/accounts.ts";
import type { Allowances } from "../../quota/allowances.ts";
import type { Ledger } from "../../quota/ledger.ts";
import { sumUsage, usageKeys } from "../../quota/usage/usage-queries.ts";
import { accountOfRequest } from "../plugins/authenticate.ts";
import { errorSchema } from "../schemas/errors.ts";
import { limitResponse, toLimitResponse } from "../schemas/quota.ts";
import { myUsageQuery, toUsageRow, usageResponse } from "../schemas/usage.ts";
import { missingIn, spanOf, type UsageRouteOptions } from "./usage.ts";

export const groupUsageQuery = myUsageQuery.extend({
  by: z
    .enum(["day", "model", "user", "both"])
    .default("day")
    .describe("How the rows are grouped; `user` is by member."),
});

/** What the members of a group have used in it. Throws AppError invalid_request. */
export type GroupUsage = (
  group: Group,
  query: z.output<typeof groupUsageQuery>,
) => Promise<z.input<typeof usageResponse>>;

export function createGroupUsage(options: UsageRouteOptions): GroupUsage {
  const { ledger, timezone, today, keepDays } = options;
  return async (group, { by, ...query }) => {
    const span = spanOf(query, today(), keepDays);
    // In the account of a group the member stands in the place of the API key.
    const lines = (await ledger.usage({ user: groupAccount(group.name), ...span })).map((row) => ({
      user: by === "user" ? row.key : undefined,
      row,
    }));
    const rows: ReturnType<typeof toUsageRow>[] = [];
    for await (const line of sumUsage(lines, by)) rows.push(toUsageRow(line, usageKeys[by]));
    return { ...span, timezone, ...(await missingIn(span, options)), rows };
  };
}

const myGroups = z.object({
  groups: z.array(
    z.object({
      name: z.string(),
      description: z.string(),
      role: z
        .enum(["owner", "member"])
        .describe("An owner sees its usage; `member` says whether chats may count for it."),
      member: z.boolean(),
      default: z.boolean().describe("Whether chats count for it that name no group."),
      limits: z.array(limitResponse).describe("Shared with all its members."),
    }),
  ),
});

interface GroupRouteOptions {
  readonly groups: Groups;
  readonly ledger: Pick<Ledger, "buckets">;
  readonly limitsOf: Allowances["limitsOf"];
  readonly groupUsage: GroupUsage;
}

/** GET /auth/groups: the caller's groups. GET /auth/groups/NAME/usage: for their owners. */
export function registerMyGroupRoutes(app: FastifyInstance, options: GroupRouteOptions): void {
  const { groups, ledger, limitsOf, groupUsage } = options;
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const config = { access: "api_key" } as const;

  routes.get(
    "/auth/groups",
    { config, schema: { summary: "My groups", tags: ["account"], response: { 200: myGroups } } },
    async (request) => {
      const account = accountOfRequest(request);
      const { username, default_group: preferred } = account;
      const all = await groups.list();
      const joined = all.filter((group) => isMember(group, account));
      const standard = joined.find(({ name }) => name === preferred) ?? joined[0];
      const mine = all.filter((group) => joined.includes(group) || group.owners.includes(username));
      const shown = mine.map(async (group) => {
        const limits = limitsOf(account, null, group).filter((limit) => limit.group === group.name);
        const buckets = await ledger.buckets(username, limits);
        return {
          name: group.name,
          description: group.description,
          role: group.owners.includes(username) ? ("owner" as const) : ("member" as const),
          member: joined.includes(group),
          default: group === standard,
          limits: buckets.map(toLimitResponse),
        };
      });
      return { groups: await Promise.all(shown) };
    },
  );

  routes.get(
    "/auth/groups/:name/usage",
    {
      config,
      schema: {
        summary: "Usage of a group that I own",
        tags: ["account"],
        params: z.object({ name: z.string().max(32) }),
        querystring: groupUsageQuery,
        response: { 200: usageResponse, 400: errorSchema, 404: errorSchema },
      },
    },
    async (request) => {
      const group = await groups.get(request.params.name);
      // The same for a group of others and for none: nobody can find out which exist.
      if (group?.owners.includes(accountOfRequest(request).username) !== true) {
        throw new AppError("not_found", { message: "You own no group of this name." });
      }
      return groupUsage(group, request.query);
    },
  );
}
