import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { RiskAdmin } from "../../admin/risk-admin.ts";
import type { RiskView } from "../../risk/trust-rules.ts";
import { signalNames } from "../../risk/signals.ts";
import { errorSchema } from "../schemas/errors.ts";
import { actorOfRequest, isoTimeOrNull, userParams } from "./admin-request.ts";

const userResponse = z.object({
  user: z.string(),
  step: z.string().describe('The trust step; "" while risk.enabled is false.'),
  pinned: z.boolean().describe("Whether an operator has pinned the user to it."),
  since: z.iso.datetime().nullable().describe("null if nothing is known of the user yet."),
  factors: z.object({ rate: z.number(), parallel: z.number(), quota: z.number() }),
  score: z.number().describe("From 0, nothing suspicious, to 100."),
  reasons: z
    .array(z.object({ signal: z.enum(signalNames), value: z.number(), points: z.number(), text: z.string() }))
    .describe("What adds to the score, most first."),
  active_days: z.int().describe("Days with completed requests since then."),
  completed: z.int().describe("Completed requests since then."),
});

const listQuery = z.strictObject({
  step: z.string().max(32).optional().describe("Only users at this step."),
  min_score: z.coerce.number().min(0).max(100).default(0).describe("Only users with at least this score."),
  limit: z.coerce.number().int().min(1).max(1000).default(100).describe("Users in the response."),
});

const listResponse = z.object({
  enabled: z.boolean(),
  steps: z.array(z.string()).describe("From the most careful to the most trusting."),
  users: z.array(userResponse).describe("Those whose behaviour is known; the highest score first."),
  total: z.int().describe("How many users match."),
});

const pinBody = z.strictObject({
  step: z.string().max(100).nullable().describe("The step; null takes the pin away."),
  reason: z.string().trim().max(500).optional(),
});

/** Trust steps and scores of users, and an operator's pin. */
export function registerRiskRoutes(app: FastifyInstance, risk: RiskAdmin): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const config = { access: "admin" } as const;
  const tags = ["admin"];

  routes.get(
    "/admin/risk",
    {
      config,
      schema: {
        summary: "Users by risk score, with their trust steps and reasons",
        tags,
        querystring: listQuery,
        response: { 200: listResponse, 400: errorSchema },
      },
    },
    async ({ query: { step, min_score: minScore, limit } }) => {
      const { users, total } = await risk.list({ step, minScore, limit });
      return { enabled: risk.enabled(), steps: [...risk.stepNames()], users: users.map(toResponse), total };
    },
  );

  routes.get(
    "/admin/risk/:name",
    {
      config,
      schema: {
        summary: "A user's risk score and trust step",
        tags,
        params: userParams,
        response: { 200: userResponse, 400: errorSchema, 404: errorSchema },
      },
    },
    async ({ params: { name } }) => toResponse(await risk.get(name)),
  );

  routes.post(
    "/admin/risk/:name/pin",
    {
      config,
      schema: {
        summary: "Pin a user to a trust step, whatever the score",
        tags,
        params: userParams,
        body: pinBody,
        response: { 200: userResponse, 400: errorSchema, 404: errorSchema },
      },
    },
    async (request) => {
      const { params, body } = request;
      return toResponse(await risk.pin(actorOfRequest(request), params.name, body.step, body.reason ?? ""));
    },
  );
}

function toResponse(view: RiskView): z.input<typeof userResponse> {
  const { user, trust, pinned, since, score, reasons, activeDays, completed } = view;
  const { step, ...factors } = trust;
  return {
    user,
    step,
    pinned,
    since: isoTimeOrNull(since),
    factors,
    score: hundredths(score),
    reasons: reasons.map((reason) => ({
      ...reason,
      value: hundredths(reason.value),
      points: hundredths(reason.points),
    })),
    active_days: activeDays,
    completed,
  };
}

function hundredths(value: number): number {
  return Math.round(value * 100) / 100;
}
