import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { CodeAdmin, CodeView, QuotaOfCode } from "../../admin/code-admin.ts";
import { codeStates } from "../../admin/code-batch.ts";
import type { Redemptions } from "../../admin/redemptions.ts";
import { codeKinds } from "../../identity/codes.ts";
import { currencyCode, isoInstant } from "../../config/value-schemas.ts";
import { metricNames, metrics } from "../../quota/metrics.ts";
import { periodNames } from "../../quota/periods.ts";
import { actorOfRequest, isoTime, isoTimeOrNull } from "../admin/admin-request.ts";
import { accountOfRequest } from "../plugins/authenticate.ts";
import { errorSchema } from "../schemas/errors.ts";
import { limitResponse, toLimitResponse } from "../schemas/quota.ts";

const word = z.string().trim().min(1).max(64);

/** Of a shorter credit a user would have nothing, and yet the code would be used up. */
const leastCreditDays = 0.001;

const newCodesBody = z
  .strictObject({
    name: word.describe("Of the batch, for you."),
    count: z.int().min(1).max(1000).default(1).describe("Codes to make; times `uses` at most 10,000."),
    uses: z.int().min(1).max(1000).default(1).describe("How often each can be used, by a user each."),
    kind: z
      .enum(codeKinds)
      .default("quota")
      .describe("quota: users redeem them for quota. invitation: strangers register with them."),
    metric: z.enum(metricNames).optional().describe("What the limit counts that it adds to. Default: cost."),
    per: z.enum(periodNames).optional().describe("That limit's period. Default: total."),
    amount: z
      .union([z.number(), z.string().max(40)])
      .optional()
      .describe("Cost in units of the currency, at most 9 decimals. Every code for quota needs one."),
    currency: currencyCode.optional().describe("Only for cost. Default: quota.currency."),
    credit_days: z
      .number()
      .min(leastCreditDays)
      .max(36_500)
      .optional()
      .describe("How long the credit lasts. Default: to the end of the running period; forever if it has none."),
    note: z.string().trim().max(500).optional().describe("Of an invitation, for you."),
    expires_at: isoInstant.optional().describe("When the codes end."),
    group: word
      .optional()
      .describe(
        "Only its members may redeem them. Of an invitation: one made by administrators, which new users join.",
      ),
    tier: word
      .optional()
      .describe("Only users of this tier may. Of an invitation: the new users' tier; default: the first."),
  })
  .superRefine(({ kind, count, uses, amount, ...body }, ctx) => {
    const refuse = (path: string, message: string): void => {
      ctx.addIssue({ code: "custom", path: [path], message });
    };
    if (count * uses > 10_000) refuse("count", "expected count times uses to be at most 10,000");
    if (kind === "invitation") {
      const { metric, per, currency, credit_days } = body;
      const ofQuota = { metric, amount, per, currency, credit_days };
      for (const [key, value] of Object.entries(ofQuota))
        if (value !== undefined) refuse(key, "only codes for quota have it, and these are invitations");
      return;
    }
    const { metric = "cost" } = body;
    if (body.note !== undefined) refuse("note", "only invitations have one");
    if (!metrics[metric].hasCurrency && body.currency !== undefined) refuse("currency", "only cost has a currency");
    const { most, parse } = metrics[metric];
    // A grant takes no more: the code would be used up, and the user have nothing.
    if (amount === undefined || !isExact(amount, parse) || Number(amount) > most)
      refuse("amount", `expected an amount of ${metric} above 0 and at most ${most}`);
  });

/** Whether the number that is stored is the amount that was asked for. */
function isExact(amount: number | string, parse: (value: number | string) => number): boolean {
  try {
    return Number(amount) > 0 && parse(amount) === parse(Number(amount));
  } catch {
    return false;
  }
}

const worth = {
  metric: z.string(),
  per: z.string(),
  amount: z.string().describe("A decimal; cost in units of the currency."),
  currency: z.string().nullable(),
};

const codeResponse = z.object({
  id: z.string().describe("The batch's id, and the number of the code in it."),
  batch: z.string(),
  kind: z.enum(codeKinds),
  name: z.string(),
  metric: z.string().nullable().describe("null, as `per` and `amount`: an invitation."),
  per: z.string().nullable(),
  amount: z.string().nullable().describe("A decimal; cost in units of the currency."),
  currency: z.string().nullable(),
  note: z.string().nullable().describe("Of an invitation."),
  state: z.enum(codeStates),
  uses: z.int().describe("How often it can be used."),
  used: z.int(),
  used_by: z.array(z.string()),
  group: z.string().nullable(),
  tier: z.string().nullable(),
  created_at: z.iso.datetime(),
  created_by: z.string(),
  expires_at: z.iso.datetime().nullable(),
});

const codesResponse = z.object({ codes: z.array(codeResponse), next_cursor: z.string().nullable() });
const madeResponse = z.object({
  batch: z.string().describe("Its id, which disables all of them."),
  codes: z.array(z.string()).describe("The codes. They are shown this once."),
});
const pageQuery = z.strictObject({
  cursor: z.string().max(64).optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
});
const redeemResponse = z.object({
  id: z.string(),
  ...worth,
  until: z.iso.datetime().nullable().describe("When the credit ends; null: never."),
  before: limitResponse.nullable().describe("The limit that it adds to, before."),
  after: limitResponse.nullable(),
});

/** POST, GET /admin/codes, POST /admin/codes/ID/disable, POST /codes/redeem. */
export function registerCodeRoutes(
  app: FastifyInstance,
  { codes, redemptions }: { readonly codes: CodeAdmin; readonly redemptions: Redemptions },
): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const admin = { access: "admin" } as const;

  routes.post(
    "/admin/codes",
    {
      config: admin,
      schema: {
        summary: "Make codes: for quota, or invitations",
        tags: ["admin"],
        body: newCodesBody,
        response: { 201: madeResponse, 400: errorSchema, 409: errorSchema },
      },
    },
    async (request, reply) => {
      const { name, count, uses, group, tier, expires_at: end } = request.body;
      const made = await codes.create(actorOfRequest(request), {
        name,
        count,
        uses,
        group,
        tier,
        gives: givesOf(request.body),
        expiresAt: end === undefined ? undefined : Date.parse(end),
      });
      return reply
        .code(201)
        .header("cache-control", "no-store")
        .send({ batch: made.batch.id, codes: [...made.codes] });
    },
  );

  routes.get(
    "/admin/codes",
    {
      config: admin,
      schema: {
        summary: "Codes for quota and invitations, the newest batch first; never the codes themselves",
        tags: ["admin"],
        querystring: pageQuery,
        response: { 200: codesResponse, 400: errorSchema },
      },
    },
    async ({ query: { cursor, limit } }) => {
      const { codes: found, next } = await codes.list(cursor, limit);
      return { codes: found.map(toCode), next_cursor: next };
    },
  );

  routes.post(
    "/admin/codes/:id/disable",
    {
      config: admin,
      schema: {
        summary: "Take a code, or a batch of them, out of use",
        tags: ["admin"],
        params: z.object({ id: z.string().max(64) }),
        response: { 204: z.null().describe("Done."), 404: errorSchema },
      },
    },
    async (request, reply) => {
      await codes.disable(actorOfRequest(request), request.params.id);
      return reply.code(204).send(null);
    },
  );

  routes.post(
    "/codes/redeem",
    {
      schema: {
        summary: "Redeem a code for quota",
        tags: ["account"],
        body: z.strictObject({ code: z.string().min(1).max(200) }),
        response: { 200: redeemResponse, 400: errorSchema, 409: errorSchema, 429: errorSchema, 503: errorSchema },
      },
    },
    async (request, reply) => {
      const { id, grant, before, after } = await redemptions.redeem(
        actorOfRequest(request),
        accountOfRequest(request),
        request.body.code,
      );
      const { metric, per, amount, currency = null, until } = grant;
      reply.header("cache-control", "no-store");
      return {
        id,
        metric,
        per,
        amount: decimalOf(metric, amount),
        currency,
        until: isoTimeOrNull(until?.getTime() ?? null),
        before: before === undefined ? null : toLimitResponse(before),
        after: after === undefined ? null : toLimitResponse(after),
      };
    },
  );
}

function givesOf(body: z.output<typeof newCodesBody>) {
  const { kind, metric = "cost", per = "total", amount, currency, credit_days: creditDays, note = "" } = body;
  if (kind === "invitation") return { kind, note };
  return { kind, metric, per, currency, creditDays, amount: Number(amount) } satisfies QuotaOfCode;
}

/** What was given is exact, and so is this: a number below 1e-6 would get an exponent. */
function decimalOf(metric: string, amount: number): string {
  const known = metricNames.find((name) => name === metric);
  return known === undefined ? String(amount) : String(metrics[known].format(metrics[known].parse(amount)));
}

function toCode({ id, batch, state, uses }: CodeView): z.input<typeof codeResponse> {
  const { kind, group, tier, name } = batch;
  const gives =
    batch.kind === "quota"
      ? {
          metric: batch.metric,
          per: batch.per,
          amount: decimalOf(batch.metric, batch.amount),
          currency: batch.currency,
          note: null,
        }
      : { metric: null, per: null, amount: null, currency: null, note: batch.note };
  return {
    id,
    batch: batch.id,
    kind,
    name,
    ...gives,
    state,
    group,
    tier,
    uses: batch.max_uses,
    used: uses.length,
    used_by: uses.slice(0, 100).map(({ user }) => user),
    created_at: isoTime(batch.created_at),
    created_by: batch.by,
    expires_at: isoTimeOrNull(batch.expires_at),
  };
}
