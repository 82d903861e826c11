import { z } from "zod";
import { expandMembers } from "../lib/member-graph.ts";
import { rateMetrics, ratePeriods } from "../limits/rate-names.ts";
import { checkPricedCurrencies, limitsSchema } from "./quota-schema.ts";
import { checkWeights } from "./rates-schema.ts";
import { modelGlob, note, plainName } from "./value-schemas.ts";

const models = z.array(modelGlob).min(1).max(100);
const maxGroups = 1000;

const groupRate = z
  .strictObject({
    metric: z.enum(rateMetrics).describe("What is counted."),
    per: z.enum(ratePeriods).describe("Period."),
    max: z.int().min(1).max(1e9).describe("Maximum per period."),
    burst: z.int().min(1).max(1e9).optional().describe("How many at once; default: max, and 2 x max per second."),
    models: models.optional().describe("Models that it applies to; absent: all."),
    weight: z
      .record(modelGlob, z.int().min(0).max(1000))
      .default({})
      .describe("Units that a request or each of its tokens takes, by model; default 1."),
  })
  .superRefine((rate, ctx) => {
    checkWeights(rate, (path, message) => {
      ctx.addIssue({ code: "custom", path: [...path], message });
    });
  });

/** The settings of a group, in config.toml, in its file and in requests of the admin API. */
const groupFields = {
  description: note.default("").describe("For people."),
  members: z
    .array(z.string().regex(/^@?[a-z0-9][a-z0-9_-]{0,31}$/, "the name of a user, or @ and the name of a group"))
    .max(10_000)
    .default([])
    .describe("Users in the group. `@NAME` stands for the members of another group."),
  owners: z.array(plainName).max(100).default([]).describe("Users who see its usage; they need not be members."),
  limits: limitsSchema.describe("Limits that its members share, in addition to their own.").default([]),
  rates: z.array(groupRate).max(4).default([]).describe("Rates that its members share."),
  models: models.optional().describe('Models that may be used in it; globs such as "deepseek-*". Absent: all.'),
  max_parallel: z.int().min(1).max(10_000).optional().describe("Concurrent chats of all members. Absent: no limit."),
};

/** A group, in config.toml and in users/groups/NAME.toml. */
export const groupSchema = z.strictObject(groupFields);

/** [groups.NAME]: users who share limits. */
export const groupsSection = z
  .record(plainName, groupSchema)
  .default({})
  .refine((groups) => Object.keys(groups).length <= maxGroups, `expected at most ${maxGroups} groups`)
  .describe("Groups of users who share limits.");

/** The settings of a group, with all defaults filled in. */
export type GroupConfig = Readonly<z.infer<typeof groupSchema>>;

/** Refuses unknown groups and cycles among members, and limits in a currency without any price. */
export function checkGroups(
  config: {
    readonly groups: Readonly<Record<string, GroupConfig>>;
    readonly quota: { readonly currency: string };
    readonly models: { readonly prices: readonly { readonly currency: string }[] };
  },
  ctx: z.core.$RefinementCtx,
): void {
  const groups = Object.entries(config.groups);
  const { problems } = expandMembers(new Map(groups.map(([name, { members }]) => [name, members])));
  for (const { group, index, message } of problems) {
    ctx.addIssue({ code: "custom", path: ["groups", group, "members", index], message });
  }
  for (const [name, { limits }] of groups) {
    checkPricedCurrencies(limits, config.quota.currency, config.models.prices, ["groups", name, "limits"], ctx);
  }
}

/** A rate that the members of a group share. */
export type GroupRate = Readonly<z.infer<typeof groupRate>>;
