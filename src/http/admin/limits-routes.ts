import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { RateOperations } from "../../admin/rate-operations.ts";
import { rateMetrics } from "../../limits/rate-names.ts";
import { errorSchema } from "../schemas/errors.ts";

const rate = {
  metric: z.enum(rateMetrics),
  max: z.int().describe("Units in each window."),
  window_seconds: z.int(),
};
const names = z.array(z.string()).nullable();

const limitsResponse = z.object({
  rules: z
    .array(
      z.object({
        name: z.string(),
        by: z.array(z.string()).describe("Empty: one bucket for all."),
        ...rate,
        burst: z.int(),
        models: names.describe("null: all; the same for tiers and groups."),
        tiers: names,
        groups: names,
        buckets: z.int().describe("Buckets that are not full."),
        evicted: z.int().describe("Buckets that were forgotten before they were full, because there were too many."),
        refused: z.int().describe("Requests that it has refused since the start or since it was added."),
      }),
    )
    .optional(),
  user: z.string().optional(),
  states: z
    .array(
      z.object({
        rule: z.string(),
        ...rate,
        remaining: z.int(),
        reset_ms: z.int().describe("Until the bucket is full."),
      }),
    )
    .optional()
    .describe("What a request of the user would find; without rules by provider, key and address."),
});

const limitsQuery = z.strictObject({
  user: z.string().optional(),
  model: z.string().max(200).optional().describe("For rules by model, and rules for some models."),
  group: z.string().max(32).optional().describe("For rules by group."),
});

/** GET /admin/limits: the rules for rates, or what one user has left of them. */
export function registerLimitsRoutes(app: FastifyInstance, rates: RateOperations): void {
  app.withTypeProvider<ZodTypeProvider>().get(
    "/admin/limits",
    {
      config: { access: "admin" },
      schema: {
        summary: "Rules for rates, or what a user has left of them",
        tags: ["admin"],
        querystring: limitsQuery,
        response: { 200: limitsResponse, 400: errorSchema, 404: errorSchema },
      },
    },
    async ({ query: { user, model, group } }): Promise<z.input<typeof limitsResponse>> => {
      if (user === undefined) {
        const rules = await rates.rules();
        return {
          rules: rules.map(({ windowSeconds, by, ...rule }) => ({
            ...rule,
            ...lists(rule),
            by: [...by],
            window_seconds: windowSeconds,
          })),
        };
      }
      const states = await rates.statesOf({ user, model, group });
      return {
        user,
        states: states.map(({ windowSeconds, resetMs, ...state }) => ({
          ...state,
          window_seconds: windowSeconds,
          reset_ms: resetMs,
        })),
      };
    },
  );
}

type Lists = Readonly<Record<"models" | "tiers" | "groups", readonly string[] | null>>;

function lists({ models, tiers, groups }: Lists): Record<"models" | "tiers" | "groups", string[] | null> {
  const copy = (list: readonly string[] | null): string[] | null => (list === null ? null : [...list]);
  return { models: copy(models), tiers: copy(tiers), groups: copy(groups) };
}
